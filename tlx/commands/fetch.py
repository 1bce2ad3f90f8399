"""The command that downloads what a manifest names."""

import shlex
import sys
from collections import Counter
from pathlib import Path

from absl import flags
from rich.table import Table
from rich.text import Text

from tlx.commands.shared import CONSOLE, FLAGS
from tlx.data.fetching import Limits, Links, Outcome, fetch, hosts, links
from tlx.data.formats.fetched import INDEX, default_folder
from tlx.errors import TlxError
from tlx.registry import commands

flags.DEFINE_list("hosts", [], "The hosts that may be asked, such as images.example.com,*.example.org.")
flags.DEFINE_bool("allow_http", False, "Allow unencrypted http, too.")
flags.DEFINE_float("max_mb", 50.0, "The largest image that is downloaded, in MB.", lower_bound=0.001)
flags.DEFINE_float("timeout", 30.0, "The seconds that one image may take.", lower_bound=0.1)
flags.DEFINE_float("total_gb", 20.0, "How much is downloaded in all, in GB.", lower_bound=0.0)
flags.declare_key_flag("out")


@commands.register("fetch", resumes=True)
def fetch_images(arguments: list[str]) -> None:
    """tlx fetch MANIFEST --hosts=HOST,...: download the images that a CSV or list of URLs names.

    Without --hosts nothing is downloaded: the hosts that the manifest names are shown, with the command that
    allows them. Hosts that redirect elsewhere need that other host allowed, too. Images go to --out (by default
    the folder of the manifest's name, beside it, where readers.manifest finds them), each with its checksum in
    index.jsonl; what is there already is not downloaded again, and an interrupted download goes on. Only
    addresses on the public internet are asked, no proxy, and only what is an image is kept. The exit code is 1
    if an image could not be had.
    """
    if len(arguments) != 1:
        raise TlxError("name one manifest: a CSV or a list of URLs")
    manifest = Path(arguments[0]).expanduser()
    if not manifest.is_file():
        raise TlxError(f"there is no file {manifest}")
    found = links(manifest)
    for finding in found.findings:
        CONSOLE.print(Text(str(finding), style="yellow"), soft_wrap=True)
    if found.others:
        CONSOLE.print(f"{found.others} rows have no URL; nothing is downloaded for them")
    if not FLAGS.hosts:
        _show_hosts(manifest, found)
        sys.exit(1)
    limits = Limits(
        tuple(host.strip().lower() for host in FLAGS.hosts),
        allow_http=FLAGS.allow_http,
        max_bytes=int(FLAGS.max_mb * 1e6),
        total_bytes=int(FLAGS.total_gb * 1e9),
        seconds=FLAGS.timeout,
    )
    folder = Path(FLAGS.out).expanduser() if FLAGS.out else default_folder(manifest)
    from tlx.report.terminal import Terminal  # noqa: PLC0415  Commands that only answer need none of this.

    with Terminal(CONSOLE) as terminal:
        outcome = fetch(found.lines, folder, limits, report=lambda *at: terminal.progress("images", *at))
    _show(outcome)
    sys.exit(1 if outcome.failed else 0)


def _show_hosts(manifest: Path, found: Links) -> None:
    counts = hosts(found.lines)
    table = Table("images", "host")
    for host, count in counts.most_common():
        table.add_row(str(count), Text(host or "(not a URL)"))
    CONSOLE.print(table)
    CONSOLE.print("Nothing was downloaded. To allow these hosts, and no others:\n")
    command = f"tlx fetch {shlex.quote(str(manifest))} --hosts={','.join(filter(None, counts))}"
    CONSOLE.print(Text(f"  {command}"), soft_wrap=True)
    if plain := sum(url.lower().startswith("http:") for url in found.lines):
        CONSOLE.print(f"\n{plain} URLs are http, unencrypted: they need --allow_http, too.")


def _show(outcome: Outcome) -> None:
    for failure in outcome.failed:
        CONSOLE.print(Text(f"line {failure.line}: {failure.url}: {failure.cause} ({failure.detail})"), soft_wrap=True)
    table = Table("images", "")
    table.add_row(str(outcome.fetched), f"downloaded ({outcome.bytes / 1e6:,.1f} MB)")
    table.add_row(str(outcome.there), "there already")
    for cause, count in Counter(failure.cause for failure in outcome.failed).most_common():
        table.add_row(str(count), Text(f"failed: {cause}", style="red"))
    CONSOLE.print(table)
    others = sorted({failure.detail for failure in outcome.failed if failure.cause == "host not allowed"})
    if others:
        CONSOLE.print(Text(f"hosts that were met and are not allowed: {','.join(others)}"), soft_wrap=True)
    CONSOLE.print(Text(f"images: {outcome.folder}, checksums: {outcome.folder / INDEX}"), soft_wrap=True)
