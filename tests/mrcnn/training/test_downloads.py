import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mrcnn import utils
from mrcnn.files.errors import InputError
from mrcnn.training import imagenet as downloads

BODY = downloads.HDF5_SIGNATURE + bytes(range(256)) * 12


class Handler(BaseHTTPRequestHandler):
    """Serves /good.h5, /chunked.h5, /page (a login page), /cut.h5 and /cut_chunk.h5 (both break off), else 404."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        path = self.path.lstrip("/")
        if path == "good.h5":
            self.answer(BODY, len(BODY))
        elif path == "cut.h5":
            self.answer(BODY[:1000], len(BODY))
        elif path == "page":
            self.answer(b"<html>Please sign in</html>", 27)
        elif path == "empty":
            self.answer(b"", 0)
        elif path in ("chunked.h5", "cut_chunk.h5"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY))
            self.wfile.write(b"0\r\n\r\n" if path == "chunked.h5" else b"ff\r\nhalf")
        else:
            self.send_error(404)

    def answer(self, body, announced):
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    # Proxies of the machine that runs the tests do not know this server.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
            thread = threading.Thread(target=http_server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{http_server.server_port}"
            http_server.shutdown()
            thread.join()


def test_download_trained_weights_fetches_the_published_file(server, tmp_path, monkeypatch, capsys):
    assert utils.COCO_MODEL_URL.startswith("https://github.com/") and utils.COCO_MODEL_URL.endswith("_coco.h5")
    monkeypatch.setattr(downloads, "COCO_MODEL_URL", f"{server}/good.h5")
    target = tmp_path / "new" / "mask_rcnn_coco.h5"
    utils.download_trained_weights(str(target), verbose=0)
    assert target.read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir()] == ["mask_rcnn_coco.h5"]
    assert capsys.readouterr().err == ""
    utils.download_trained_weights(target)
    assert "100%" in capsys.readouterr().err


def test_download_h5_of_unknown_length(server, tmp_path):
    downloads.download_h5(f"{server}/chunked.h5", tmp_path / "w.h5", verbose=0)
    assert (tmp_path / "w.h5").read_bytes() == BODY


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.h5", "cannot download .*gone.h5 .*404"),
        ("page", "page is not an HDF5 file"),
        ("cut.h5", f"cut.h5 broke off after 1000 of {len(BODY)} bytes"),
        ("cut_chunk.h5", "cannot download .*cut_chunk.h5"),
        ("empty", "empty broke off after 0"),
    ],
)
def test_download_h5_leaves_the_old_file_on_a_fault(server, tmp_path, name, message):
    target = tmp_path / "w.h5"
    target.write_text("old")
    with pytest.raises(InputError, match=message):
        downloads.download_h5(f"{server}/{name}", target, verbose=0)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_download_h5_without_a_server(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        port = http_server.server_port
    with pytest.raises(InputError, match="put it at .*w.h5"):
        downloads.download_h5(f"http://127.0.0.1:{port}/good.h5", tmp_path / "w.h5", verbose=0)
    assert not list(tmp_path.iterdir())
