//! Generated from `plugin-api/wit/v0.1.0`: one module per hook point, so that a plugin exports what it serves and
//! nothing else. All share the types of [`base`].

#![allow(missing_docs, unreachable_pub, clippy::all)]

pub mod base {
    wit_bindgen::generate!({
        path: "../wit/v0.1.0",
        world: "weirmq:plugin/base",
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
            world authorize-hook { export weirmq:plugin/authorize@0.1.0; }
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
            world on-publish-hook { export weirmq:plugin/on-publish@0.1.0; }
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
