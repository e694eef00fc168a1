//! Words of closed sets, as metrics and the log show them. Each set is written once, by the module that knows what its words
//! mean; this trait lets [`metrics`](crate::metrics), which stands below that module, count by them. Nothing that came from a
//! socket is a label.

/// A value of a closed set, and its word.
pub trait Label: Copy {
    /// The word: the value of a metric's label, what the log says, and where it is shown the JSON of `/topology`. Dashboards,
    /// alerts and scripts count on it.
    fn label(self) -> &'static str;
}

/// A set whose values can be named without meeting them.
pub trait LabelSet: Label + PartialEq + 'static {
    /// All of them, each once.
    const ALL: &'static [Self];
}

/// An enum that is a [`LabelSet`]: each variant with its word.
macro_rules! label_set {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::label::Label for $name {
            fn label(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl $crate::label::LabelSet for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }
    };
}

pub(crate) use label_set;
