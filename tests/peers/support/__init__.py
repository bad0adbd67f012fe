"""What the peer tests share: processes, polling, manifests, the router, the model server."""
