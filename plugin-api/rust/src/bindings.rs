//! Generated from `plugin-api/wit/v0.1.0`: one module per hook point, so that a plugin exports what it serves and
//! nothing else. All share the types of [`base`], which has all that a plugin may import; what it does not call is
//! not imported.

#![allow(missing_docs, unreachable_pub, clippy::all)]

pub mod base {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world rust-base {
                include weirmq:plugin/base@0.1.0;
                include weirmq:plugin/with-secrets@0.1.0;
                include weirmq:plugin/with-key-value@0.1.0;
                include weirmq:plugin/with-publish@0.1.0;
                include weirmq:plugin/with-http@0.1.0;
                include weirmq:plugin/with-revoke@0.1.0;
            }
        ",
        generate_all,
        pub_export_macro: true,
    });
}

pub mod authenticate {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world authenticate-hook { export weirmq:plugin/authenticate@0.1.0; }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod authorize {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world authorize-hook {
                export weirmq:plugin/authorize@0.1.0;
                export weirmq:plugin/authorize-in-brief@0.1.0;
            }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod on_publish {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world on-publish-hook {
                export weirmq:plugin/on-publish@0.1.0;
                export weirmq:plugin/on-publish-in-brief@0.1.0;
            }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod on_subscribe {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world on-subscribe-hook { export weirmq:plugin/on-subscribe@0.1.0; }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod on_unsubscribe {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world on-unsubscribe-hook { export weirmq:plugin/on-unsubscribe@0.1.0; }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world lifecycle-hook { export weirmq:plugin/lifecycle@0.1.0; }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod on_deliver {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world on-deliver-hook { export weirmq:plugin/on-deliver@0.1.0; }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod persistence {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world persistence-hook { export weirmq:plugin/persistence@0.1.0; }
        ",
        with: { "weirmq:plugin/types@0.1.0": crate::bindings::base::weirmq::plugin::types },
        pub_export_macro: true,
    });
}

pub mod timer {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world timer-hook { export weirmq:plugin/timer@0.1.0; }
        ",
        pub_export_macro: true,
    });
}

pub mod store_backend {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        inline: "
            package weirmq:rust-guest;
            world store-backend-hook { export weirmq:plugin/store-backend@0.1.0; }
        ",
        pub_export_macro: true,
    });
}
