package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/messagedb"
)

// categoryState is where a category stands. It is written with what has led to it.
type categoryState struct {
	// Position is the global position of the last message that counts, and Message its id; 0 and empty before the first.
	Position int64  `json:"position"`
	Message  string `json:"message,omitempty"`
	// Version is that of the configuration with which it was read from the beginning.
	Version int `json:"version,omitempty"`
	// Refused are the ids of streams that could not be folded. The next run tries them again; if they were too many to be named, it reads all again.
	Refused []string `json:"refused,omitempty"`
	// RefusedMore reports that there are others.
	RefusedMore bool `json:"refused_more,omitempty"`
	// ListedTo is the position up to which messages were read before: they find what is there, and do not bring back what somebody has deleted.
	ListedTo int64 `json:"listed_to,omitempty"`
}

// maxRefusedStreams is how many streams that could not be folded a position names.
const maxRefusedStreams = 100

// categoryRun is one run of a source that is a category.
type categoryRun[T delta.Object] struct {
	config   CategoryConfig[T]
	category string
	feed     *delta.Feed
	log      *slog.Logger
	state    categoryState
	page     categoryPage
	// writer writes a page while the next one is read: written is the position of what it has written, and state that of what was given to it.
	writer  writer
	written int64

	// isReading reports that messages are read which were there when the run began, and reason says why. behind is how many messages were before it at counted.
	began     time.Time
	isReading bool
	reason    string
	behind    *int64
	counted   time.Time
}

// categoryPage has the streams of messages that were read, and are not written.
type categoryPage struct {
	// ids are those of the streams, in the order of their first messages. isLive has each, and whether one of its messages was not read before.
	ids    []string
	isLive map[string]bool
	// unnamed are messages of streams without an id.
	unnamed []*messagedb.Message
	// messages counts what was read. Last is the latest of them; nil for none.
	messages int
	last     *messagedb.Message
	began    time.Time
}

// addMessage adds a message, which was not read before if it is live.
func (p *categoryPage) addMessage(m *messagedb.Message, isLive bool) {
	if p.messages == 0 {
		p.began = time.Now()
	}
	p.messages++
	p.last = m
	id, named := m.Stream.ID()
	if !named || id == "" {
		p.unnamed = append(p.unnamed, m)
		return
	}
	p.putID(id, isLive)
}

func (p *categoryPage) putID(id string, isLive bool) {
	if p.isLive == nil {
		p.isLive = map[string]bool{}
	}
	if _, there := p.isLive[id]; !there {
		p.ids = append(p.ids, id)
	}
	p.isLive[id] = p.isLive[id] || isLive
}

func (p *categoryPage) isEmpty() bool { return p.messages == 0 && len(p.ids) == 0 }

// openRun reads the position in the category, and starts again from its beginning if that is needed.
func (s *categorySource[T]) openRun(ctx context.Context, feed *delta.Feed) (*categoryRun[T], error) {
	r := &categoryRun[T]{config: s.config, category: s.category, feed: feed, log: feed.Logger(), began: time.Now(), writer: writer{feed: feed}}
	position := feed.Position()
	if position == "" {
		r.state.Version = s.config.Version
		r.isReading, r.reason = true, "it was not read yet"
		return r, nil
	}
	if err := json.Unmarshal([]byte(position), &r.state); err != nil {
		return nil, fmt.Errorf("reading the position %q in delta_source: %w", position, err)
	}
	r.written = r.state.Position
	switch {
	case r.state.Version != s.config.Version:
		return r, r.restartReading(ctx, fmt.Sprintf("CategoryConfig.Version is %d, and was %d", s.config.Version, r.state.Version))
	case r.state.RefusedMore:
		return r, r.restartReading(ctx, fmt.Sprintf("more than %d streams could not be folded", maxRefusedStreams))
	}
	return r, nil
}

// restartReading begins again at the first message.
func (r *categoryRun[T]) restartReading(ctx context.Context, why string) error {
	r.log.Warn("bridge: the category is read again from its first message", "category", r.category, "because", why)
	r.isReading, r.reason = true, why
	r.page, r.state = categoryPage{}, categoryState{Version: r.config.Version, ListedTo: max(r.written, r.state.ListedTo)}
	r.written = 0
	return r.feed.Write(ctx, delta.FeedPage{Position: r.state.formatText()})
}

func (s categoryState) formatText() string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // it has nothing that could not be JSON
	}
	return string(text)
}

// followCategory takes messages until ctx ends or it cannot go on.
func (r *categoryRun[T]) followCategory(ctx context.Context) error {
	defer r.writer.abandonPage()
	r.page = categoryPage{}
	if err := r.checkPosition(ctx); err != nil {
		return err
	}
	for _, id := range r.state.Refused {
		r.page.putID(id, false) // the program may be another one by now
	}
	if err := r.flushPage(ctx); err != nil {
		return err
	}
	messages := make(chan *messagedb.Message)
	failed := make(chan error, 1)
	subscription, err := r.config.Client.SubscribeToCategory(ctx, r.category, func(ctx context.Context, m *messagedb.Message) error {
		select {
		case messages <- m:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, messagedb.CategoryOptions{From: r.state.Position + 1, BatchSize: r.config.BatchSize}, messagedb.SubscriptionOptions{
		Polling: r.config.Polling, Notify: r.config.Notify,
		Retried: func(err error) { // the source fails, so that it is seen, and another client may have more luck
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		subscription.Stop()
		<-subscription.Done()
	}()
	return r.takeMessages(ctx, subscription, messages, failed)
}

// takeMessages takes what comes.
func (r *categoryRun[T]) takeMessages(ctx context.Context, subscription *messagedb.Subscription, messages <-chan *messagedb.Message, failed <-chan error) error {
	r.reportProgress(time.Time{})
	for {
		asked := time.Now()
		wait := defaultCheckInterval
		if !r.page.isEmpty() {
			wait = pageLinger
		}
		timer, isDue := time.NewTimer(wait), false
		select {
		case m := <-messages:
			if m.Time.After(r.began) {
				r.isReading, r.reason = false, "" // all that was there before has come
			}
			if r.page.isEmpty() {
				r.reportProgress(m.Time)
			}
			r.page.addMessage(m, m.GlobalPosition > r.state.ListedTo)
			isDue = r.page.messages >= r.config.BatchSize || time.Since(r.page.began) >= pageAge
		case <-timer.C:
			isDue = true
		case err := <-r.writer.running:
			timer.Stop()
			if err := r.writer.endPage(err); err != nil {
				return err
			}
			continue
		case err := <-failed:
			timer.Stop()
			return err
		case <-subscription.Done():
			timer.Stop()
			return subscription.Err()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
		if !isDue {
			continue
		}
		isIdle := r.page.isEmpty()
		if err := r.flushPage(ctx); err != nil {
			return err
		}
		if isIdle {
			if err := r.writer.awaitPage(); err != nil {
				return err
			}
			r.isReading, r.reason = false, ""
			r.reportProgress(asked)
		}
		r.countLag(ctx, isIdle)
	}
}

// reportProgress reports the state of the category. All messages up to the time caughtUpTo were written.
func (r *categoryRun[T]) reportProgress(caughtUpTo time.Time) {
	r.feed.Report(delta.FeedReport{IsReading: r.isReading, Reason: r.reason, CaughtUpTo: caughtUpTo, BehindMessages: r.behind})
}

const (
	// countEvery is how often messages are counted that are before a category which is behind, since that costs the more the more they are. countTimeout bounds it.
	countEvery   = 15 * time.Second
	countTimeout = 3 * time.Second
)

// countLag counts what is before the category. It is not known where that takes too long.
func (r *categoryRun[T]) countLag(ctx context.Context, isIdle bool) {
	if isIdle {
		r.behind = new(int64)
		return
	}
	if time.Since(r.counted) < countEvery {
		return
	}
	r.counted, r.behind = time.Now(), nil
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	if lag, err := r.config.Client.CategoryLag(ctx, r.category, r.state.Position, nil); err == nil {
		r.behind = &lag.Messages
	}
}

// checkPosition compares the position with the store. A store that was emptied and filled again may have other messages before the position, which were not read.
func (r *categoryRun[T]) checkPosition(ctx context.Context) error {
	return r.config.Client.CheckPosition(ctx, r.category, r.state.Position, r.state.Message)
}

// flushPage folds the streams of the page, and begins to inform their objects together with the position.
func (r *categoryRun[T]) flushPage(ctx context.Context) error {
	// After the messages were read: what is there now was there then. And before they count.
	if err := r.checkPosition(ctx); err != nil {
		return err
	}
	if r.page.isEmpty() {
		return nil
	}
	state := r.state
	state.Refused = slices.Clone(state.Refused)
	if last := r.page.last; last != nil {
		state.Position, state.Message = last.GlobalPosition, last.ID
	}
	var changes []delta.FeedChange
	for _, m := range r.page.unnamed {
		err := fmt.Errorf("message %s is in stream %q, whose name has no id", m.ID, m.Stream)
		if r.config.ErrorPolicy == ErrorStop {
			return err
		}
		changes = append(changes, delta.FeedChange{Refused: &delta.FeedRefusal{Err: err}})
	}
	folded, err := r.config.Entity.GetMany(ctx, r.page.ids)
	if err != nil {
		return fmt.Errorf("folding %d streams of category %s: %w", len(r.page.ids), r.category, err)
	}
	for i, id := range r.page.ids {
		change, err := r.changeOf(id, folded[i])
		if err != nil {
			return err
		}
		state.recordFolded(id, change != nil && change.Refused != nil)
		if change != nil {
			change.Listed = !r.page.isLive[id]
			changes = append(changes, *change)
		}
	}
	r.state, r.page = state, categoryPage{}
	return r.writer.beginPage(ctx, delta.FeedPage{Changes: changes, Position: state.formatText()}, func() { r.written = state.Position })
}

// recordFolded records whether a stream could be folded.
func (s *categoryState) recordFolded(id string, isRefused bool) {
	at := slices.Index(s.Refused, id)
	switch {
	case !isRefused && at >= 0:
		s.Refused = slices.Delete(s.Refused, at, at+1)
	case isRefused && at < 0 && len(s.Refused) < maxRefusedStreams:
		s.Refused = append(s.Refused, id)
	case isRefused && at < 0:
		s.RefusedMore = true
	}
}

// changeOf returns the change that a stream, as it was folded, makes of its object; nil where the stream has no messages any more. It fails with ErrorStop only, if
// the stream cannot be folded.
func (r *categoryRun[T]) changeOf(id string, folded messagedb.EntityResult[T]) (change *delta.FeedChange, err error) {
	isGone := false
	err = folded.Err
	switch {
	case err == nil && folded.Version == messagedb.NoStreamVersion:
		return nil, nil //nolint:nilnil // nothing is to be said
	case err == nil:
		isGone, err = r.judgeObject(id, folded.Value)
	}
	switch {
	case err != nil && r.config.ErrorPolicy == ErrorStop:
		return nil, fmt.Errorf("folding stream %q of category %s: %w", id, r.category, err)
	case err != nil:
		return &delta.FeedChange{Refused: &delta.FeedRefusal{ID: id, Err: describeFold(err)}}, nil
	case isGone:
		return &delta.FeedChange{GoneID: id}, nil
	}
	return &delta.FeedChange{Object: folded.Value}, nil
}

// describeFold names the message that cannot be folded, as briefly as refused objects are shown.
func describeFold(err error) error {
	refusal, decode := new(messagedb.HandlerError), new(messagedb.DecodeError)
	if !errors.As(err, &refusal) {
		return err
	}
	if err = refusal.Err; errors.As(err, &decode) {
		err = fmt.Errorf("%s into %s: %w", decode.Field, decode.Into, decode.Err)
	}
	return fmt.Errorf("message %s (%s, position %d of its stream): %w", refusal.Message.ID, refusal.Message.Type, refusal.Message.Position, err)
}

// judgeObject reports whether an object is gone. It refuses one that is not of its stream.
func (r *categoryRun[T]) judgeObject(id string, object T) (isGone bool, err error) {
	defer catchPanic(&err)
	if isGone = r.config.IsGone(object); isGone {
		return true, nil
	}
	if own := object.ID(); own != id {
		return false, fmt.Errorf("its ID is %q, and must be the id of its stream, %q: a fold can take it from the name of the message's stream", own, id)
	}
	return false, nil
}
