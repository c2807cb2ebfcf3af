"""What every endpoint of the gateway needs: requests, answers, problems, limits."""
