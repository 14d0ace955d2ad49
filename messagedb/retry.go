package messagedb

import "time"

const (
	shortestRetry = 100 * time.Millisecond
	longestRetry  = 5 * time.Second
)
