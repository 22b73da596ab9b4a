"""The command line of Machineshop: a project folder becomes a deployment, and a deployment's jobs get results."""
