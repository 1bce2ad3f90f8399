import contextlib
import io
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlx.data.fetching import Limits, Network, fetch, hosts, links
from tlx.data.fetching.naming import choose_stems, plain_stem
from tlx.data.fetching.rules import RefusedError, checked, is_public
from tlx.data.formats import fetched
from tlx.data.readers.manifest import manifest
from tlx.errors import DataError, TlxError
from tlx.lock import only_process


def png(colour="red", size=(8, 6)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


PNG = png()


class Site:
    """A server on the loopback: `answers` by path, each called with the request's handler; `asked` in order."""

    def __init__(self, context=None):
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append((self.headers["Host"], self.path))
                site.headers = self.headers
                # Who asks goes away, as is right with some of these answers.
                with contextlib.suppress(OSError):
                    site.answers[self.path.partition("?")[0]](self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                sock, address = super().get_request()
                sock.settimeout(20)
                return (context.wrap_socket(sock, server_side=True) if context else sock), address

            def handle_error(self, *_):
                pass

        self.answers = {}
        self.asked = []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def serve(site, path, content=PNG, **headers):
    """Let a site answer a path with some content."""

    def answer(handler):
        handler.send_response(200)
        for name, value in {"Content-Length": len(content), "Content-Type": "image/png", **headers}.items():
            if value is not None:
                handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(content)

    site.answers[path] = answer


def redirect(site, path, location, status=302):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Location", location)
        handler.end_headers()

    site.answers[path] = answer


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.test", "other.test").configure_cert(context)
    site = Site(context)
    yield site
    site.close()


@pytest.fixture(scope="module")
def plain():
    site = Site()
    yield site
    site.close()


@pytest.fixture(autouse=True)
def _fresh(secure, plain):
    for site in (secure, plain):
        site.answers.clear()
        site.asked.clear()
    serve(secure, "/fine.png")
    serve(plain, "/fine.png")


@pytest.fixture(scope="module")
def network(authority):
    """The test's own network: names ending in .test are on the loopback, which is public there."""
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def resolve(host, port):
        if host == "inside.test":
            return ["10.0.0.7"]
        if host == "mixed.test":
            return ["127.0.0.1", "10.0.0.7"]
        if host.endswith(".test"):
            return ["127.0.0.1"]
        raise socket.gaierror(-2, "Name or service not known")

    return Network(resolve=resolve, is_public=lambda address: address == "127.0.0.1", context=context)


@pytest.fixture
def limits(secure, plain):
    def limits(*names, **more):
        ports = frozenset({secure.port, plain.port})
        return Limits(names or ("good.test", "inside.test", "mixed.test"), ports=ports, **{"seconds": 5.0, **more})

    return limits


def numbered(urls):
    return {url: line for line, url in enumerate(urls, 2)}


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in (".tlx-made", ".tlx.lock"))


def test_a_manifest_is_fetched_once_and_then_read(tmp_path, secure, network, limits):
    base = f"https://good.test:{secure.port}"
    serve(secure, "/a%20b.PNG", png("blue"))
    serve(secure, "/x/1", png("green"))
    serve(secure, "/y/1", png("white"))
    file = tmp_path / "pets.csv"
    urls = [f"{base}/a%20b.PNG?size=3", f"{base}/x/1", f"{base}/y/1"]
    file.write_text("url,label\n" + "".join(f"{url},{label}\n" for url, label in zip(urls, "ccd", strict=True)))
    found = links(file)
    assert found.lines == numbered(urls)

    seen = []
    outcome = fetch(found.lines, tmp_path / "pets", limits(), network, lambda *at: seen.append(at))
    assert (outcome.fetched, outcome.there, outcome.failed) == (3, 0, [])
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert {host for host, _ in secure.asked} == {f"good.test:{secure.port}"}
    assert not {"Cookie", "Authorization", "Referer"} & set(secure.headers)
    names = files(tmp_path / "pets")
    assert {"a_b.png", "index.jsonl"} < set(names)
    assert len([name for name in names if name.startswith("1-") and name.endswith(".png")]) == 2
    entries = fetched.load(tmp_path / "pets").entries
    assert set(entries) == set(urls)
    dataset = manifest(file)
    assert [dataset.classes[e.objects.labels[0]] for e in dataset.examples] == ["c", "c", "d"]
    assert dataset.findings == ()

    secure.asked.clear()
    again = fetch(found.lines, tmp_path / "pets", limits(), network)
    assert (again.fetched, again.there, secure.asked) == (0, 3, [])

    (tmp_path / "pets" / entries[urls[0]].file).write_bytes(PNG)
    (tmp_path / "pets" / entries[urls[1]].file).unlink()
    again = fetch(found.lines, tmp_path / "pets", limits(), network)
    assert (again.fetched, again.there) == (2, 1)
    assert sorted(path for _, path in secure.asked) == ["/a%20b.PNG?size=3", "/x/1"]
    assert files(tmp_path / "pets") == names


def lying(content, length):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + content)

    return answer


def endless(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100_000):
        handler.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")


def drip(head):
    def answer(handler):
        handler.wfile.write(head)
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    return answer


def bomb():
    content = bytearray(PNG)
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


BAD = {
    "a page": (lying(b"<html>no", 8), "not a readable image"),
    "nothing": (lying(b"", 0), "not a readable image"),
    "half a picture": (lying(PNG[:-30], len(PNG) - 30), "not a readable image"),
    "a bomb": (lying(bomb(), len(PNG)), "not a readable image"),
    "gone": (lambda h: h.send_error(404), "HTTP 404"),
    "broken server": (lambda h: h.send_error(500), "HTTP 500"),
    "ends early": (lying(PNG, len(PNG) + 5), "truncated"),
    "says it is too large": (lying(PNG, 5_000_000), "too large"),
    "says it is short": (lying(PNG, 40), "not a readable image"),
    "endless": (endless, "too large"),
    "drips its head": (drip(b"HTTP/1.1 200 OK\r\nX: "), "timeout"),
    "drips its body": (drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"), "timeout"),
    "drips chunks": (drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n"), "timeout"),
    "says nothing": (lambda h: time.sleep(3), "timeout"),
    "hangs up": (lambda h: h.connection.close(), "connection lost"),
    "no HTTP": (lambda h: h.wfile.write(b"220 welcome to SMTP\r\n" * 9), "broken answer"),
    "a thousand headers": (lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000), "broken answer"),
    "a bad chunk": (
        lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "broken answer",
    ),
    "compressed": (lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"), "compressed"),
    "redirect without a place": (lambda h: h.wfile.write(b"HTTP/1.1 302 Found\r\n\r\n"), "HTTP 302"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_server_does_costs_that_image_only(tmp_path, plain, network, limits, case):
    answer, cause = BAD[case]
    plain.answers["/bad.png"] = answer
    base = f"http://good.test:{plain.port}"
    rules = limits(allow_http=True, seconds=0.6, max_bytes=1_000_000)
    outcome = fetch(numbered([f"{base}/bad.png", f"{base}/fine.png"]), tmp_path / "out", rules, network)
    assert [(f.line, f.url, f.cause) for f in outcome.failed] == [(2, f"{base}/bad.png", cause)]
    assert outcome.fetched == 1
    assert files(tmp_path / "out") == ["fine.png", "index.jsonl"]


REDIRECTS = {
    "elsewhere": ("https://evil.test:{secure}/fine.png", "host not allowed"),
    "to http": ("http://good.test:{plain}/fine.png", "http, not https"),
    "to a private address": ("https://inside.test:{secure}/fine.png", "private address"),
    "to one private address of two": ("https://mixed.test:{secure}/fine.png", "private address"),
    "to the machine itself": ("https://127.0.0.1:{secure}/fine.png", "host not allowed"),
    "to another port": ("https://good.test:22/fine.png", "port not allowed"),
    "to a file": ("file:///etc/passwd", "not a URL"),
    "to a name that is not there": ("https://[::bad/", "not a URL"),
    "with a password": ("https://me:secret@good.test:{secure}/fine.png", "credentials in the URL"),
    "in a circle": ("/go", "too many redirects"),
}


@pytest.mark.parametrize("case", REDIRECTS)
@pytest.mark.parametrize("status", [301, 307])
def test_every_redirect_is_checked(tmp_path, secure, plain, network, limits, case, status):
    location, cause = REDIRECTS[case]
    redirect(secure, "/go", location.format(secure=secure.port, plain=plain.port), status)
    url = f"https://good.test:{secure.port}/go"
    outcome = fetch(numbered([url]), tmp_path / "out", limits(), network)
    assert [f.cause for f in outcome.failed] == [cause]
    assert "secret" not in outcome.failed[0].detail
    assert plain.asked == []
    assert {path for _, path in secure.asked} == {"/go"}
    assert files(tmp_path / "out") == ["index.jsonl"]


def test_an_allowed_redirect_is_followed_and_noted(tmp_path, secure, network, limits):
    redirect(secure, "/go", f"https://other.test:{secure.port}/fine.png")
    url = f"https://good.test:{secure.port}/go"
    assert fetch(numbered([url]), tmp_path, limits("good.test", "*.other.test"), network).fetched == 0
    assert fetch(numbered([url]), tmp_path, limits("good.test", "other.test"), network).fetched == 1
    entry = fetched.load(tmp_path).entries[url]
    assert (entry.file, entry.final_url) == ("go.png", f"https://other.test:{secure.port}/fine.png")
    assert secure.asked[-1][0] == f"other.test:{secure.port}"


def test_a_name_is_looked_up_once_for_each_connection(tmp_path, plain, limits):
    asked, tried = [], []

    def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    def allowed(address):
        tried.append(address)
        return address == "127.0.0.1"

    redirect(plain, "/go", "/fine.png")
    url = f"http://good.test:{plain.port}/go"
    rules = limits(allow_http=True)
    outcome = fetch(numbered([url]), tmp_path, rules, Network(resolve=rebinding, is_public=allowed))
    assert [f.cause for f in outcome.failed] == ["private address"]
    assert asked == ["good.test", "good.test"]
    assert tried == ["127.0.0.1", "127.0.0.2"]
    assert [path for _, path in plain.asked] == ["/go"]


def test_a_wrong_certificate_is_refused(tmp_path, secure, network, limits):
    url = f"https://wrong.test:{secure.port}/fine.png"
    outcome = fetch(numbered([url]), tmp_path, limits("wrong.test"), network)
    assert [f.cause for f in outcome.failed] == ["no secure connection"]
    assert secure.asked == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "0.0.0.0"])
def test_the_machine_s_own_network_never_gets_here(tmp_path, plain, host):
    rules = Limits((host,), allow_http=True, ports=frozenset({plain.port}))
    outcome = fetch(numbered([f"http://{host}:{plain.port}/fine.png"]), tmp_path, rules)
    assert [f.cause for f in outcome.failed] in (["private address"], ["unknown host"])
    assert plain.asked == []


def test_a_resolver_that_hangs_is_not_waited_for(tmp_path, limits, plain):
    over = threading.Event()
    network = Network(resolve=lambda *_: over.wait(20) and [])
    outcome = fetch(
        numbered([f"http://good.test:{plain.port}/"]), tmp_path, limits(allow_http=True, seconds=0.3), network
    )
    over.set()
    assert [f.cause for f in outcome.failed] == ["timeout"]


def test_proxies_of_the_environment_are_not_asked(tmp_path, plain, network, limits, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    url = f"http://good.test:{plain.port}/fine.png"
    assert fetch(numbered([url]), tmp_path, limits(allow_http=True), network).fetched == 1


def test_there_is_a_limit_to_all_of_it(tmp_path, plain, network, limits):
    for number in range(20):
        serve(plain, f"/{number}.png")
    urls = [f"http://good.test:{plain.port}/{number}.png" for number in range(20)]
    outcome = fetch(numbered(urls), tmp_path, limits(allow_http=True, total_bytes=5 * len(PNG)), network)
    assert outcome.fetched == 5
    assert {f.cause for f in outcome.failed} == {"total limit reached"}


CHILD = """
import sys, json, signal
from pathlib import Path
# A shell that begins tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from tlx.data.fetching import fetch, Limits, Network
port = int(sys.argv[1])
urls = {f"http://good.test:{port}/{n}.png": n for n in range(12)}
limits = Limits(("good.test",), allow_http=True, ports=frozenset({port}))
fetch(urls, Path(sys.argv[2]), limits, Network(lambda *_: ["127.0.0.1"], lambda _: True))
"""


def slow_site(plain, fast):
    gate = threading.Event()

    def answer(number):
        def answer(handler):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(PNG[:30])
            handler.wfile.flush()
            if number >= fast:
                gate.wait(20)
            handler.wfile.write(PNG[30:])

        return answer

    plain.answers.update({f"/{number}.png": answer(number) for number in range(12)})
    return gate


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_goes_on(tmp_path, plain, network, limits, number):
    gate = slow_site(plain, 4)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(plain.port), tmp_path], stderr=subprocess.DEVNULL)
    index = tmp_path / "index.jsonl"
    try:
        for _ in range(400):
            if index.exists() and index.read_bytes().count(b"\n") == 4 and len(plain.asked) == 10:
                break
            time.sleep(0.05)
        child.send_signal(number)
        assert child.wait(15) != 0
    finally:
        child.kill()
        child.wait()
    gate.set()
    assert bool(list(tmp_path.glob(".tlx-partial-*"))) == (number == signal.SIGKILL)
    with index.open("ab") as file:
        file.write(b'{"url": "torn')
    plain.asked.clear()
    urls = [f"http://good.test:{plain.port}/{n}.png" for n in range(12)]
    outcome = fetch(numbered(urls), tmp_path, limits(allow_http=True), network)
    assert (outcome.there, outcome.fetched, len(plain.asked)) == (4, 8, 8)
    assert files(tmp_path) == sorted([*(f"{n}.png" for n in range(12)), "index.jsonl"])
    assert set(fetched.load(tmp_path).entries) == set(urls)


def test_an_interrupt_leaves_nothing_half_done(tmp_path, plain, network, limits):
    slow_site(plain, 4)

    def report(done, total):
        if done == 4:
            raise KeyboardInterrupt

    urls = [f"http://good.test:{plain.port}/{n}.png" for n in range(12)]
    with pytest.raises(KeyboardInterrupt):
        fetch(numbered(urls), tmp_path, limits(allow_http=True), network, report)
    assert files(tmp_path) == ["0.png", "1.png", "2.png", "3.png", "index.jsonl"]


def test_a_folder_that_is_in_use_or_leads_elsewhere_is_refused(tmp_path, network, limits):
    with only_process(tmp_path / "used"), pytest.raises(TlxError, match="in use"):
        fetch({}, tmp_path / "used", limits(), network)
    (tmp_path / "mine").write_text("precious")
    for name in ("index.jsonl", ".tlx.lock"):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "mine")
        with pytest.raises(TlxError, match=f"holds what tlx did not make.*{name}"):
            fetch({}, folder, limits(), network)
        (folder / name).unlink()
        fetch({}, folder, limits(), network)
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "mine")
        with pytest.raises(TlxError, match="is a link"):
            fetch({}, folder, limits(), network)
    assert (tmp_path / "mine").read_text() == "precious"


def test_what_has_an_images_name_costs_that_image_and_stays(tmp_path, plain, network, limits):
    (tmp_path / "mine").write_text("precious")
    folder = tmp_path / "out"
    fetch({}, folder, limits(), network)
    (folder / "fine.png").symlink_to(tmp_path / "mine")
    (folder / "b.png").write_text("mine, too")
    (folder / ".tlx-partial-notes").mkdir()
    for name in ("b", "c"):
        serve(plain, f"/{name}.png")
    urls = [f"http://good.test:{plain.port}/{name}.png" for name in ("fine", "b", "c")]
    outcome = fetch(numbered(urls), folder, limits(allow_http=True), network)
    assert [(failure.line, failure.cause) for failure in outcome.failed] == [(2, "name taken"), (3, "name taken")]
    assert outcome.fetched == 1
    assert (folder / "fine.png").readlink() == tmp_path / "mine"
    assert (tmp_path / "mine").read_text() == "precious"
    assert (folder / "b.png").read_text() == "mine, too"
    assert (folder / ".tlx-partial-notes").exists()


def test_a_folder_that_was_downloaded_before_tlx_kept_lists_is_gone_on_with(tmp_path, plain, network, limits):
    url = f"http://good.test:{plain.port}/fine.png"
    fetch(numbered([url]), tmp_path, limits(allow_http=True), network)
    for name in (".tlx-made", ".tlx.lock"):
        (tmp_path / name).unlink()
    (tmp_path / "process.lock").write_text("1")
    again = fetch(numbered([url]), tmp_path, limits(allow_http=True), network)
    assert (again.fetched, again.there) == (0, 1)
    assert files(tmp_path) == ["fine.png", "index.jsonl", "process.lock"]


PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
PRIVATE = """
127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 0.1.2.3
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 192.0.2.1 198.51.100.1 203.0.113.9 198.18.0.1 192.0.0.8
:: ::1 fe80::1 fe80::1%eth0 fc00::1 fd12:3456::1 fec0::1 ff02::1 2001:db8::1 100::1 2001::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1
2002:7f00:1::1 2002:a00:1::1 ::127.0.0.1 ::10.0.0.1
"""


def test_public_and_other_addresses():
    assert [address for address in PUBLIC if not is_public(address)] == []
    assert [address for address in PRIVATE.split() if is_public(address)] == []


URLS = {
    "https://good.test/a b/ä.jpg?q=ü#x": ("good.test", 443, "/a%20b/%C3%A4.jpg?q=%C3%BC"),
    "https://GOOD.test./%20.jpg": ("good.test", 443, "/%20.jpg"),
    "https://www.bücher.test:443/": ("www.xn--bcher-kva.test", 443, "/"),
    "https://good.test": ("good.test", 443, "/"),
    "http://good.test/": "http, not https",
    "ftp://good.test/": "ftp, not https",
    "gs://good.test/": "gs, not https",
    "data:image/png;base64,AAAA": "not a URL",
    "https://bad.test/": "host not allowed",
    "https://good.test.bad.test/": "host not allowed",
    "https://notgood.test/": "host not allowed",
    "https://a.bücher.test/": "host not allowed",
    "https://good.test@bad.test/": "credentials in the URL",
    "https://good.test:8443/": "port not allowed",
    "https://good.test:99999/": "not a URL",
    "https://good.test\\@bad.test/": "not a URL",
    "https://good.test/\r\nHost: bad.test": "not a URL",
    "https:///a.jpg": "not a URL",
    "https://go%6fd.test/": "not a URL",
    "https://good.test\u2024bad/": "host not allowed",
    "https://[fe80::1%25eth0]/": "host not allowed",
    "https://" + "a" * 70 + ".test/": "not a URL",
}


@pytest.mark.parametrize("url", URLS)
def test_urls(url):
    rules = Limits(("good.test", "www.xn--bcher-kva.test"))
    if isinstance(URLS[url], tuple):
        assert checked(url, rules)[1:] == URLS[url]
    else:
        with pytest.raises(RefusedError) as refused:
            checked(url, rules)
        assert refused.value.cause == URLS[url]


def test_patterns_of_hosts():
    rules = Limits(("*.good.test", "one.test", "[::1]"))
    allowed = ["a.good.test", "b.a.good.test", "one.test", "[::1]"]
    assert [host for host in [*allowed, "good.test", "a.one.test", "xgood.test"] if rules.allows(host)] == allowed
    for pattern in ("*", "*.test", "https://good.test", "good.*", "a/b", "", "*good.test"):
        with pytest.raises(DataError, match="no host to allow"):
            Limits((pattern,))


@given(st.text(max_size=300))
def test_a_name_for_any_url_stays_in_its_folder(text):
    name = plain_stem("https://good.test/" + text.replace("[", "").replace("]", ""))
    assert name == Path(name).name
    assert not name.startswith(".")
    assert 0 < len(name.encode()) <= 204
    assert not set(name) & set('<>:"/\\|?*\0 ')


def test_names_are_unique_and_readable():
    urls = [f"https://good.test/{path}" for path in ("a.jpg", "A.png", "b/a.jpg", "c.jpg?x", "NUL.jpg", "..", "t.jpg")]
    chosen = choose_stems(urls, ["T"])
    names = list(chosen.values())
    assert names[3:6] == ["c", "_NUL", "image"]
    assert len({name.casefold() for name in [*names, "T"]}) == 8
    assert chosen == choose_stems(urls, ["T"])


def test_links_and_hosts(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("url\nhttps://a.test/1.jpg\nhttps://a.test/1.jpg\nhttps://B.test/2.jpg\nhttps://[bad/\nlocal.jpg\n")
    found = links(file)
    assert found.lines == {"https://a.test/1.jpg": 2, "https://B.test/2.jpg": 4, "https://[bad/": 5}
    assert found.others == 1
    assert hosts(found.lines) == {"a.test": 1, "b.test": 1, "": 1}
    file.write_text("path\na.jpg\n")
    with pytest.raises(DataError, match="none of its 1 rows has a URL"):
        links(file)


def tlx(*arguments):
    return subprocess.run([sys.executable, "-m", "tlx", *arguments], capture_output=True, text=True, check=False)


def test_the_command_shows_hosts_and_downloads_nothing_unasked(tmp_path, plain):
    file = tmp_path / "some list.csv"
    file.write_text(f"url\nhttp://localhost:{plain.port}/fine.png\nhttp://localhost:{plain.port}/b.png\n")
    done = tlx("fetch", str(file))
    assert done.returncode == 1
    assert f"tlx fetch '{file}' --hosts=localhost" in done.stdout
    assert "2 URLs are http" in done.stdout
    assert files(tmp_path) == ["some list.csv"]
    done = tlx("fetch", str(file), "--hosts=localhost", "--allow_http")
    assert done.returncode == 1
    assert "port not allowed" in done.stdout
    assert plain.asked == []
    done = tlx("fetch", str(file), "--hosts=http://localhost")
    assert (done.returncode, "no host to allow" in done.stderr) == (1, True)
    done = tlx("fetch", str(tmp_path / "nowhere.csv"))
    assert (done.returncode, "no file" in done.stderr) == (1, True)
