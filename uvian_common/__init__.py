"""What the client and all three packages stand on: it knows neither arq nor Redis nor a row."""
