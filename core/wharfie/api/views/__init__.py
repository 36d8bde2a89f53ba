"""How the engine's models look in Docker's JSON: field for field, null for null, a module for each resource."""
