"""The sheet that a clinic works from while the service is down."""
