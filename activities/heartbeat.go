package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
)

// startHeartbeat sends heartbeats until the returned function is called. The SDK sends no more of them than the timeout
// needs.
func (a *Activities) startHeartbeat(ctx context.Context) (stop func()) {
	return a.startHeartbeatWith(ctx, func() []any { return nil })
}

// startHeartbeatWith is startHeartbeat with details that change. A heartbeat under way at the end of the activity
// arrives before its result, because the SDK would log a warning if the activity's context cut it off.
func (a *Activities) startHeartbeatWith(ctx context.Context, details func() []any) (stop func()) {
	if !activity.IsActivity(ctx) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(heartbeatInterval(ctx))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				activity.RecordHeartbeat(context.WithoutCancel(ctx), details()...)
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// heartbeatInterval returns the time between two heartbeats.
func heartbeatInterval(ctx context.Context) time.Duration {
	timeout := HeartbeatTimeout
	if activity.IsActivity(ctx) && activity.GetInfo(ctx).HeartbeatTimeout > 0 {
		timeout = activity.GetInfo(ctx).HeartbeatTimeout
	}
	return timeout / 4
}
