"""The per-node agent: identity, connections and events of VM ports on stock Linux."""
