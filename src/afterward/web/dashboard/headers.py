"""What browsers are told about every page: nothing from elsewhere, no script or style within, in nobody's frame."""

from __future__ import annotations

from collections.abc import Mapping

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


def headers(**policy: str) -> Mapping[str, str]:
    """The headers of a page. `policy`: what differs, as `style_src="…"`."""
    said = _POLICY | {name.replace("_", "-"): value for name, value in policy.items()}
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in said.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        # With "no-referrer", browsers would hide from us where our own forms come from.
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
