"""Why did it wait? The stories of requests: kept, shared between routers, told in words."""
