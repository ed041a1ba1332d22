//! A login plugin in ten lines: names and passwords from its configuration.

use weirmq_plugin::*;

struct Login(std::collections::HashMap<String, String>);

impl Plugin for Login {
    type Config = std::collections::HashMap<String, String>;
    fn new(passwords: Self::Config) -> Result<Self, String> {
        Ok(Self(passwords))
    }
}

impl Authenticate for Login {
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
        match (&request.username, &request.password) {
            (Some(name), Some(word)) if self.0.get(name).is_some_and(|known| known.as_bytes() == word) => {
                Answer::allow(Lease::new(name))
            }
            _ => Answer::deny(BAD_USER_NAME_OR_PASSWORD, "unknown user or wrong password"),
        }
    }
}

export!(Login: authenticate);
