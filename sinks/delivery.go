package sinks

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// verdict is the result of an attempt.
type verdict int

const (
	retried verdict = iota
	finished
	stops
)

// task is one attempt to deliver the first message of a lane. While it runs, the entry belongs to its goroutine.
type task struct {
	lane    *lane
	entry   *entry
	verdict verdict
	err     error
}

// deliverTasks makes one attempt for each task. The messages are of different keys.
func (r *Relay) deliverTasks(ctx context.Context, tasks []*task) []*task {
	ctx, cancel := context.WithTimeout(ctx, r.config.DeliveryTimeout)
	defer cancel()
	var sent []*task
	var messages []Message
	for _, t := range tasks {
		if r.prepareTask(ctx, t) {
			sent, messages = append(sent, t), append(messages, t.entry.message)
		}
	}
	if len(sent) == 0 {
		return tasks
	}
	errs := r.callSink(ctx, messages)
	for i, t := range sent {
		r.judgeAttempt(ctx, t, errs[i])
	}
	return tasks
}

// prepareTask filters and transforms a message. It reports whether the message is to be delivered.
func (r *Relay) prepareTask(ctx context.Context, t *task) bool {
	if t.entry.isTransformed {
		return true
	}
	var wanted bool
	err := catchPanic(func() (err error) {
		m := t.entry.message
		if wanted = r.config.Filter == nil || r.config.Filter(m); !wanted || r.config.Transform == nil {
			return nil
		}
		position, key, barrier := m.Position, m.Key, m.Barrier
		if m, err = r.config.Transform(ctx, m); err == nil {
			m.Position, m.Key, m.Barrier = position, key, barrier
			t.entry.message = m
		}
		return err
	})
	switch {
	case err != nil:
		r.judgeAttempt(ctx, t, Permanent(fmt.Errorf("the filter or transform function failed: %w", err)))
		return false
	case !wanted:
		t.verdict = finished
		r.addStats(func(s *Stats) { s.Filtered++ })
		return false
	}
	t.entry.isTransformed = true
	return true
}

// callSink calls the sink, and returns one error for each message, whatever the sink returns.
func (r *Relay) callSink(ctx context.Context, messages []Message) (errs []error) {
	err := catchPanic(func() error { errs = r.config.Sink.Deliver(ctx, messages); return nil })
	switch {
	case err != nil:
		return FailAll(len(messages), err)
	case errs == nil:
		return make([]error, len(messages))
	case len(errs) != len(messages):
		return FailAll(len(messages), fmt.Errorf("the sink answered %d errors for %d messages", len(errs), len(messages)))
	}
	return errs
}

// judgeAttempt sets the verdict of an attempt.
func (r *Relay) judgeAttempt(ctx context.Context, t *task, err error) {
	if errors.Is(err, ErrNotTried) {
		t.verdict, t.err = retried, err
		return
	}
	t.entry.attempts++
	if err == nil {
		t.verdict = finished
		r.addStats(func(s *Stats) { s.Delivered++ })
		return
	}
	t.verdict, t.err = retried, err
	r.addStats(func(s *Stats) { s.Failed++; s.LastError = err })
	if !IsPermanent(err) && (r.config.MaxAttempts == 0 || t.entry.attempts < r.config.MaxAttempts) {
		r.log.logFailure("messages are not delivered; they are tried again", err)
		return
	}
	r.applyPolicy(ctx, t)
}

// applyPolicy applies the error policy to a message that cannot be delivered.
func (r *Relay) applyPolicy(ctx context.Context, t *task) {
	m := t.entry.message
	attributes := []any{"id", m.ID, "subject", m.Subject, "key", m.Key, "type", m.Type, "attempts", t.entry.attempts, "error", t.err}
	switch r.config.Undeliverable {
	case Stop:
		t.verdict = stops
		r.config.Logger.Error("a message cannot be delivered; the relay stops", attributes...)
	case SetAside:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.config.DeliveryTimeout) // the delivery may have taken all its time
		defer cancel()
		if err := catchPanic(func() error { return r.config.SetAside(ctx, m, t.err) }); err != nil {
			r.log.logFailure("messages cannot be set aside; they are tried again", err)
			return
		}
		t.verdict = finished
		r.addStats(func(s *Stats) { s.SetAside++ })
		r.config.Logger.Error("a message cannot be delivered; it is set aside", attributes...)
	default:
		if !t.entry.isBlocked {
			t.entry.isBlocked = true
			r.config.Logger.Error("a message cannot be delivered; its key waits, because the policy is block", attributes...)
		}
	}
}

// catchPanic returns a panic of the user's code as an error.
func catchPanic(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
