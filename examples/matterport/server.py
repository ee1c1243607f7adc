"""Answer over HTTP what is in an image: POST its file, get JSON. Each request has a thread of its own.

python3 server.py serve --weights=last
curl --data-binary @photo.png http://localhost:5000

python3 server.py try --weights=last --dataset=/path/to/images      # asks itself about all of them at once
"""

import glob
import http.client
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.pool import ThreadPool
from threading import Thread

import cv2
import numpy as np
from small_detector import SmallConfig, load_model, parse_arguments


class InferenceConfig(SmallConfig):
    NAME = "server"
    NUM_CLASSES = 1 + 3
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        r = model.detect([image[..., ::-1]])[0]
        answer = {k: r[k].tolist() for k in ("rois", "class_ids", "scores")}
        answer["areas"] = r["masks"].sum(axis=(0, 1)).tolist()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def ask(path):
    connection = http.client.HTTPConnection(*server.server_address)
    with open(path, "rb") as f:
        connection.request("POST", "/", f.read())
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


if __name__ == "__main__":
    args = parse_arguments()
    model = load_model("inference", InferenceConfig(), args.weights)
    # Before there are threads, which must not build it at the same time
    model.keras_model._make_predict_function()
    server = ThreadingHTTPServer(("127.0.0.1", 5000 if args.command == "serve" else 0), Handler)
    if args.command == "serve":
        server.serve_forever()
    Thread(target=server.serve_forever, daemon=True).start()
    paths = sorted(glob.glob(os.path.join(args.dataset, "*.png")))
    with ThreadPool(4) as pool:
        answers = pool.map(ask, paths, chunksize=1)
    server.shutdown()
    for path, answer in zip(paths, answers, strict=True):
        print(path, len(answer["rois"]), "found")
