//! Enums whose variants are the numbers of a table of the standard.

/// One row per variant: its name, its number and its words; everything that a number has to be looked up for comes
/// from this one table. `$text` is what the words are called.
macro_rules! numbered {
    (
        $(#[$meta:meta])* $type:ident, $(#[$text_meta:meta])* $text:ident;
        $($name:ident = $number:literal, $words:literal;)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $type {
            $(#[doc = concat!(stringify!($number), ": ", $words, ".")] $name = $number,)*
        }

        impl $type {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The one with this number, where there is one.
            #[must_use]
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            $(#[$text_meta])*
            #[must_use]
            pub const fn $text(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

pub(crate) use numbered;
