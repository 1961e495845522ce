"""The models, losses and optimisers of ektm in plain PyTorch: slow, one task and one expert at a time, written from the
equations in docs/method.md and the papers. They share no code with the C++ program; tests/test_golden.py compares the two."""
