//! What the settings of tokens must be together.

use super::Config;

pub(super) fn problems(config: &Config) -> Vec<String> {
    let rules = &config.limits.tokens;
    let mut problems = Vec::new();
    if config.token_jwks.is_some() {
        if rules.issuer.is_empty() {
            problems.push("token-jwks: tokens of any issuer would do; give token-issuer".to_owned());
        }
        if rules.audiences.is_empty() {
            problems.push("token-jwks: tokens for anything would do; give token-audience".to_owned());
        }
    } else if !rules.issuer.is_empty() || !rules.audiences.is_empty() || rules.endpoint_claim.is_some() {
        problems.push(
            "token-issuer, token-audience, token-endpoint-claim: there are no keys to check tokens with; give token-jwks"
                .to_owned(),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_rules_and_rules_without_keys_are_refused() {
        let mut config = Config::default();
        assert_eq!(problems(&config), [""; 0]);
        config.token_jwks = Some("/jwks.json".into());
        let told = problems(&config);
        assert!(told.len() == 2 && told[0].contains("give token-issuer") && told[1].contains("give token-audience"));
        config.limits.tokens.issuer = "https://issuer".to_owned();
        config.limits.tokens.audiences = vec!["scoring".to_owned()];
        assert_eq!(problems(&config), [""; 0]);
        config.token_jwks = None;
        assert!(problems(&config)[0].contains("give token-jwks"));
    }
}
