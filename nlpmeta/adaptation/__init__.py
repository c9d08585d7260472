"""From a support set to a model a person can rely on: measured over draws, compared with the plain baseline."""
