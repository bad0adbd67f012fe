"""A router without names or routes."""

from replicas import Replica, echo


def test_a_router_without_names_and_routes_serves(patient):
    # No resolver, no hosts, and no network but loopback: that is all the tests' own network has.
    blind = 'for file in resolv.conf hosts nsswitch.conf; do mount --bind /dev/null /etc/$file || exit; done; exec "$@"'
    with Replica(echo) as replica:
        router = patient([replica.place], prefix=["unshare", "--mount", "sh", "-c", blind, "sh"])
        with open(f"/proc/{router.process.child.pid}/root/etc/resolv.conf") as file:
            assert file.read() == ""
        for number in range(20):
            seen = router.ask(b"%d" % number)
            assert (seen.status, seen.body) == (200, b"%d" % number)
            assert router.logged(seen.id)["Outcome"] == "served"
