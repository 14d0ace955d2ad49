package frozen

// Modules are the modules with packages for users, by their folders. They are tagged with each release; the others hold programs, tests and tools.
var Modules = []string{".", "deltaotel", "sinks/kafka", "sinks/nats", "sinks/redis"}
