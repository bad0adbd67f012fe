"""A scanner finds Mozilla's profiles met, and none of the known weaknesses."""

import pytest
from conftest import NAME
from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

PROFILES = {
    "intermediate with both kinds of certificates": (TlsConfigurationEnum("intermediate"), ["ecdsa", "rsa"], []),
    "intermediate with RSA alone": (TlsConfigurationEnum("intermediate"), ["rsa"], []),
    "modern": (TlsConfigurationEnum("modern"), ["ecdsa"], ["--tls-min-version", "1.3"]),
}


def scan(router, authority):
    request = ServerScanRequest(
        ServerNetworkLocation(NAME, router.port, ip_address="127.0.0.1"),
        ServerNetworkConfiguration(NAME),
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(custom_ca_file=authority.file)
        ),
    )
    scanner = Scanner()
    scanner.queue_scans([request])
    return next(iter(scanner.get_results()))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_of_mozilla_is_met(start, authority, profile):
    configuration, kinds, arguments = PROFILES[profile]
    pairs = [argument for kind in kinds for argument in authority.issue(f"own-{kind}", kind=kind)]
    # Raises, with every single deviation, where it is not met or a scan could not be done.
    check_server_against_tls_configuration(
        server_scan_result=scan(start(*pairs, *arguments), authority),
        tls_config_to_check_against=MozillaTlsConfiguration.get(configuration),
    )


def test_a_profile_is_not_met_by_chance(start, authority):
    result = scan(start(*authority.issue("own-ecdsa")), authority)
    with pytest.raises(Exception, match="tls_versions"):
        check_server_against_tls_configuration(
            server_scan_result=result,
            tls_config_to_check_against=MozillaTlsConfiguration.get(TlsConfigurationEnum("modern")),
        )


def test_clients_cannot_renegotiate_and_nothing_is_taken_before_the_handshake_is_over(start, authority):
    attempts = scan(start(*authority.issue("own-ecdsa")), authority).scan_result
    assert not attempts.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos
    assert not attempts.tls_1_3_early_data.result.supports_early_data
