"""Connect to a box with OpenSSH, and exchange requests and answers with its agent."""
