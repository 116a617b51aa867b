"""Runs the processes of jobs and deployments, one supervisor for each row."""
