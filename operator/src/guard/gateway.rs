//! The kinds of Gateway API that the guard reads, and the statuses it writes.
//!
//! Only what is read is named. Enumerations are texts here: a value that a later version of the API
//! brings is then refused with a reason, where a closed type would lose the object as a whole. These
//! types drop what they do not name, so objects are never written back, only statuses.

mod class;
mod grant;
mod listener;
mod route;

pub use class::{GatewayClass, GatewayClassSpec, GatewayClassStatus, SupportedFeature};
pub use grant::{
    GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantBeta, ReferenceGrantBetaSpec,
    ReferenceGrantSpec,
};
pub use listener::{
    AddressStatus, AllowedRoutes, Gateway, GatewayAddress, GatewaySpec, GatewayStatus, GatewayTls,
    Infrastructure, Listener, ListenerStatus, ListenerTls, ObjectReference, RouteKind,
    RouteNamespaces,
};
pub use route::{
    BackendReference, HeaderModifier, HeaderValue, HttpRoute, HttpRouteSpec, ParentReference,
    PathMatch, PathModifier, RequestRedirect, RouteFilter, RouteMatch, RouteParentStatus,
    RouteRule, RouteStatus, RouteTimeouts, UrlRewrite, ValueMatch,
};

/// The group of these kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";
