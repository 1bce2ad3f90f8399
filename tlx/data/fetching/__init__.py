"""Downloads what a manifest names: on request only, from allowed hosts only, never from a private address."""

from tlx.data.fetching.fetch import Failure, Links, Outcome, fetch, hosts, links
from tlx.data.fetching.rules import Limits, Network

__all__ = ["Failure", "Limits", "Links", "Network", "Outcome", "fetch", "hosts", "links"]
