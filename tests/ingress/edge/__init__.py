"""What the ingress tests share: nginx as an ingress controller configures it, replicas, clients, load."""
