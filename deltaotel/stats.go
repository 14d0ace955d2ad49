package deltaotel

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
)

const (
	// lagInterval is the least time between two reads of a consumer's or projector's lag from the database, and lagTimeout how long a read may take.
	lagInterval = 15 * time.Second
	lagTimeout  = 3 * time.Second
)

// figure is a metric that is read from statistics when metrics are collected.
type figure[S any] struct {
	name, unit, description string
	// isCounter reports whether the value only grows.
	isCounter bool
	of        func(S) float64
	// labels are the labels besides the name of the observed object.
	labels []attribute.KeyValue
}

// observeStats registers figures that are read from statistics, with a label for the name, until stop is called. read returns false if there are no statistics
// at the moment.
func observeStats[S any](provider metric.MeterProvider, label, name string, figures []figure[S], read func(context.Context) (S, bool)) (stop func(), err error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter(scope)
	var errs []error
	instruments, all := make([]metric.Float64Observable, len(figures)), make([]metric.Observable, len(figures))
	options := make([]metric.ObserveOption, len(figures))
	for i, f := range figures {
		var err error
		if f.isCounter {
			instruments[i], err = meter.Float64ObservableCounter(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.description))
		} else {
			instruments[i], err = meter.Float64ObservableGauge(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.description))
		}
		errs = append(errs, err)
		all[i] = instruments[i]
		options[i] = metric.WithAttributes(append([]attribute.KeyValue{attribute.String(label, name)}, f.labels...)...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		stats, there := read(ctx)
		if !there {
			return nil
		}
		for i, f := range figures {
			o.ObserveFloat64(instruments[i], f.of(stats), options[i])
		}
		return nil
	}, all...)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = registration.Unregister() }), nil // the SDK always returns nil
}

// ObserveConsumer registers the metrics of a consumer of messagedb until stop is called. The label consumer is the name or, if it is empty, the position stream.
// The lag is read from the database when metrics are collected, at most every 15 seconds, with a timeout of 3 seconds. A nil provider is the global one.
func ObserveConsumer(provider metric.MeterProvider, name string, consumer *messagedb.Consumer) (stop func(), err error) {
	if name == "" {
		name = consumer.PositionStream().String()
	}
	endStats, err := observeStats(provider, "consumer", name, consumerFigures, func(context.Context) (messagedb.ConsumerStats, bool) {
		return consumer.Stats(), true
	})
	if err != nil {
		return nil, err
	}
	return observeLag(provider, "consumer", name, consumer.Lag, endStats)
}

// ObserveProjector registers the metrics of a projector of messagedb until stop is called. The label projector is the name or, if it is empty, NAME+VERSION of
// the projection. The lag is read like that of [ObserveConsumer]. A nil provider is the global one.
func ObserveProjector(provider metric.MeterProvider, name string, projector *messagedb.Projector) (stop func(), err error) {
	if name == "" {
		name = projector.Name() + messagedb.CompoundSeparator + strconv.Itoa(projector.Version())
	}
	endStats, err := observeStats(provider, "projector", name, projectorFigures, func(context.Context) (messagedb.ProjectorStats, bool) {
		return projector.Stats(), true
	})
	if err != nil {
		return nil, err
	}
	return observeLag(provider, "projector", name, projector.Lag, endStats)
}

// observeLag registers the lag of a reader in addition to its statistics. stop ends both.
func observeLag(provider metric.MeterProvider, label, name string, ask func(context.Context) (messagedb.Lag, error), endStats func()) (stop func(), err error) {
	lag := &lagMeter{ask: ask}
	endLag, err := observeStats(provider, label, name, lagFigures("messagedb."+label, label), lag.readLag)
	if err != nil {
		endStats()
		return nil, err
	}
	return func() { endStats(); endLag() }, nil
}

// lagFigures returns the figures of the lag of a reader of messages.
func lagFigures(prefix, reader string) []figure[messagedb.Lag] {
	return []figure[messagedb.Lag]{
		{prefix + ".lag", "{message}", "Messages that a " + reader + " has before it.", false, func(l messagedb.Lag) float64 { return float64(l.Messages) }, nil},
		{prefix + ".age", "s", "For how long the oldest of them has been waiting.", false, func(l messagedb.Lag) float64 { return l.Age.Seconds() }, nil},
	}
}

func outcomeLabel(value string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("outcome", value)}
}

var (
	consumerFigures = []figure[messagedb.ConsumerStats]{
		{"messagedb.consumer.messages", "{message}", consumerMessages, true, func(s messagedb.ConsumerStats) float64 { return float64(s.Handled) }, outcomeLabel("handled")},
		{"messagedb.consumer.messages", "{message}", consumerMessages, true, func(s messagedb.ConsumerStats) float64 { return float64(s.Ignored) }, outcomeLabel("ignored")},
		{"messagedb.consumer.messages", "{message}", consumerMessages, true, func(s messagedb.ConsumerStats) float64 { return float64(s.Skipped) }, outcomeLabel("skipped")},
		{"messagedb.consumer.retries", "{error}", "Errors of a consumer that were retried.", true, func(s messagedb.ConsumerStats) float64 { return float64(s.Retried) }, nil},
		{
			"messagedb.consumer.conflicts", "{run}", "Runs that ended because another consumer has the same position stream.", true,
			func(s messagedb.ConsumerStats) float64 { return float64(s.Conflicts) }, nil,
		},
		{
			"messagedb.consumer.rewinds", "{rewind}", "How often a consumer began again because the store had gone back.", true,
			func(s messagedb.ConsumerStats) float64 { return float64(s.Rewound) }, nil,
		},
	}
	projectorFigures = []figure[messagedb.ProjectorStats]{
		{"messagedb.projector.messages", "{message}", projectorMessages, true, func(s messagedb.ProjectorStats) float64 { return float64(s.Handled) }, outcomeLabel("handled")},
		{"messagedb.projector.messages", "{message}", projectorMessages, true, func(s messagedb.ProjectorStats) float64 { return float64(s.Ignored) }, outcomeLabel("ignored")},
		{"messagedb.projector.messages", "{message}", projectorMessages, true, func(s messagedb.ProjectorStats) float64 { return float64(s.Skipped) }, outcomeLabel("skipped")},
		{
			"messagedb.projector.overtaken", "{message}", "Messages, of those that were handled, that another projector of the name had handled.", true,
			func(s messagedb.ProjectorStats) float64 { return float64(s.Overtaken) }, nil,
		},
		{"messagedb.projector.retries", "{error}", "Errors of a projector that were retried.", true, func(s messagedb.ProjectorStats) float64 { return float64(s.Retried) }, nil},
		{
			"messagedb.projector.rewinds", "{rewind}", "How often the position of a projection was found to be less than it was.", true,
			func(s messagedb.ProjectorStats) float64 { return float64(s.Rewound) }, nil,
		},
		{"messagedb.projector.live", "", "1 while the version of the projector is the live one, as far as it has looked.", false, func(s messagedb.ProjectorStats) float64 { return float64(boolToInt(s.Live)) }, nil},
	}
	subscriptionFigures = []figure[messagedb.SubscriptionStats]{
		{"messagedb.subscription.messages", "{message}", "Messages that a subscription has handled.", true, func(s messagedb.SubscriptionStats) float64 { return float64(s.Handled) }, nil},
		{"messagedb.subscription.retries", "{error}", "Errors of reading that were retried.", true, func(s messagedb.SubscriptionStats) float64 { return float64(s.Retried) }, nil},
		{
			"messagedb.subscription.rewinds", "{rewind}", "How often a subscription began again because the store had gone back.", true,
			func(s messagedb.SubscriptionStats) float64 { return float64(s.Rewound) }, nil,
		},
	}
	clientFigures = []figure[messagedb.ClientStats]{
		{"messagedb.client.messages", "{message}", "Messages that were written.", true, func(s messagedb.ClientStats) float64 { return float64(s.Written) }, nil},
		{"messagedb.client.conflicts", "{call}", "Writes that were refused because of the expected version.", true, func(s messagedb.ClientStats) float64 { return float64(s.Conflicts) }, nil},
		{"messagedb.client.duplicates", "{call}", "Writes that were refused because of an id that is there.", true, func(s messagedb.ClientStats) float64 { return float64(s.Duplicates) }, nil},
	}
	streamFigures = []figure[cdc.Stats]{
		{"cdc.stream.up", "", "1 while a stream has a connection, 0 while it has none.", false, func(s cdc.Stats) float64 { return float64(boolToInt(s.Connected)) }, nil},
		{"cdc.stream.lag", "s", "How long ago the oldest transaction was committed that came and is not acknowledged.", false, func(s cdc.Stats) float64 { return s.Lag.Seconds() }, nil},
		{"cdc.stream.delay", "s", "From the commit of a heartbeat until it was delivered.", false, func(s cdc.Stats) float64 { return s.HeartbeatDelay.Seconds() }, nil},
		{"cdc.stream.unacknowledged", "{transaction}", "Transactions that came and are not acknowledged.", false, func(s cdc.Stats) float64 { return float64(s.Waiting) }, nil},
		{"cdc.stream.retained", "By", "The log that the server keeps for the stream, as far as it has read it.", false, func(s cdc.Stats) float64 { return float64(s.LagBytes) }, nil},
		{"cdc.stream.spilled", "By", "What is in temporary files at the moment.", false, func(s cdc.Stats) float64 { return float64(s.SpilledBytes) }, nil},
		{"cdc.stream.spilled.transactions", "{transaction}", "Transactions that were delivered from files.", true, func(s cdc.Stats) float64 { return float64(s.SpilledTransactions) }, nil},
		{"cdc.stream.transactions", "{transaction}", "Transactions that were delivered.", true, func(s cdc.Stats) float64 { return float64(s.Transactions) }, nil},
		{"cdc.stream.io", "By", "The size of what was delivered, as the server sent it.", true, func(s cdc.Stats) float64 { return float64(s.Bytes) }, nil},
		{"cdc.stream.reconnects", "{connection}", "How often a lost connection was replaced.", true, func(s cdc.Stats) float64 { return float64(s.Reconnects) }, nil},
		{"cdc.stream.heartbeats", "{heartbeat}", "Heartbeats that were written.", true, func(s cdc.Stats) float64 { return float64(s.Heartbeats) }, nil},
	}
	// sinks.WriteMetrics has the same names.
	relayFigures = []figure[sinks.Stats]{
		{"delta.sink.messages", "{message}", relayMessages, true, func(s sinks.Stats) float64 { return float64(s.Delivered) }, outcomeLabel("delivered")},
		{"delta.sink.messages", "{message}", relayMessages, true, func(s sinks.Stats) float64 { return float64(s.Filtered) }, outcomeLabel("filtered")},
		{"delta.sink.messages", "{message}", relayMessages, true, func(s sinks.Stats) float64 { return float64(s.SetAside) }, outcomeLabel("set_aside")},
		{"delta.sink.failed_attempts", "{attempt}", "Attempts to deliver a message that failed.", true, func(s sinks.Stats) float64 { return float64(s.Failed) }, nil},
		{"delta.sink.source_errors", "{error}", "Reads and confirmations of the source that failed.", true, func(s sinks.Stats) float64 { return float64(s.SourceErrors) }, nil},
		{
			"delta.sink.unconfirmed", "{message}", "Messages that were read and are not finished, or wait for one that is not.", false,
			func(s sinks.Stats) float64 { return float64(s.Unconfirmed) }, nil,
		},
		{"delta.sink.waiting_keys", "{key}", "Keys, and messages without a key, that wait for their next attempt.", false, func(s sinks.Stats) float64 { return float64(s.Waiting) }, nil},
		{"delta.sink.running", "", "1 while the relay runs, 0 while it does not.", false, func(s sinks.Stats) float64 { return float64(boolToInt(s.Running)) }, nil},
		{"delta.sink.full", "", "1 while nothing more is read, because as much as may be is not finished.", false, func(s sinks.Stats) float64 { return float64(boolToInt(s.Full)) }, nil},
		{
			"delta.sink.age", "s", "How old the oldest message is that was read and is not finished; 0 where there is none.", false,
			func(s sinks.Stats) float64 { return s.Age(time.Now()).Seconds() }, nil,
		},
	}
)

const (
	consumerMessages  = "Messages of a consumer, by what became of them."
	projectorMessages = "Messages of a projector, by what became of them."
	relayMessages     = "Messages of a relay that are finished, by what became of them."
)

// lagMeter caches a lag for lagInterval.
type lagMeter struct {
	ask func(context.Context) (messagedb.Lag, error)

	mu      sync.Mutex
	asked   time.Time
	latest  messagedb.Lag
	isKnown bool
}

// readLag returns the latest lag. It returns false if the latest read has failed.
func (l *lagMeter) readLag(ctx context.Context) (messagedb.Lag, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked.IsZero() || time.Since(l.asked) >= lagInterval {
		ctx, cancel := context.WithTimeout(ctx, lagTimeout)
		defer cancel()
		lag, err := l.ask(ctx)
		l.asked, l.latest, l.isKnown = time.Now(), lag, err == nil
	}
	return l.latest, l.isKnown
}

// ObserveSubscription registers the metrics of a subscription of messagedb, with the label subscription, until stop is called. A nil provider is the global one.
func ObserveSubscription(provider metric.MeterProvider, name string, subscription *messagedb.Subscription) (stop func(), err error) {
	return observeStats(provider, "subscription", name, subscriptionFigures, func(context.Context) (messagedb.SubscriptionStats, bool) {
		return subscription.Stats(), true
	})
}

// ObserveMessages registers the metrics of the messages that a client of messagedb writes, with the label client, until stop is called. A nil provider is the
// global one.
func ObserveMessages(provider metric.MeterProvider, name string, client *messagedb.Client) (stop func(), err error) {
	return observeStats(provider, "client", name, clientFigures, func(context.Context) (messagedb.ClientStats, bool) { return client.Stats(), true })
}

// ObserveStream registers the metrics of a stream of cdc, with the label stream, such as the name of its slot, until stop is called. A nil provider is the global
// one. The metrics do not include WAL that the server has not decoded yet: see cdc.Slot.
func ObserveStream(provider metric.MeterProvider, name string, stream *cdc.Stream) (stop func(), err error) {
	return observeStats(provider, "stream", name, streamFigures, func(context.Context) (cdc.Stats, bool) { return stream.Stats(), true })
}

// ObserveRelay registers the metrics of a relay of sinks, with the label relay, such as the name of its consumer or slot, until stop is called. A nil provider is
// the global one.
func ObserveRelay(provider metric.MeterProvider, name string, relay *sinks.Relay) (stop func(), err error) {
	return observeStats(provider, "relay", name, relayFigures, func(context.Context) (sinks.Stats, bool) { return relay.Stats(), true })
}
