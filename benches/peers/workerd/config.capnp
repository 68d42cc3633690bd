# One Worker with one Durable Object class on SQLite, for `workerd serve`. The two things that differ between runs come from
# the command line: `--socket-addr http=127.0.0.1:PORT` and `--directory-path data=DIR`.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    # The directory must exist; the path here is a placeholder that a run overrides.
    (name = "data", disk = (path = "data", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
  # A client that offers permessage-deflate would get it, and a compressor for each socket with it; our server has none.
  compatibilityFlags = ["no_web_socket_compression"],
  bindings = [(name = "SESSIONS", durableObjectNamespace = "Session")],
  durableObjectNamespaces = [(className = "Session", uniqueKey = "greenroom-peer-session", enableSql = true)],
  durableObjectStorage = (localDisk = "data"),
);
