package kafka_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/internal/sinktest"
	"github.com/chariot-giving/delta/sinks/kafka"
)

// newCluster starts brokers that speak Kafka's protocol.
func newCluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(3, "delta.number", "delta.public.My_Table"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster
}

func newClient(t *testing.T, cluster *kfake.Cluster, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.AllowIdempotentProduceCancellation())...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// consumeRecords returns the first n records of a topic.
func consumeRecords(t *testing.T, cluster *kfake.Cluster, topic string, n int) (records []*kgo.Record) {
	t.Helper()
	client := newClient(t, cluster, kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func TestMessagesAreRecordsWithKeyAndHeaders(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t)
	sink, err := kafka.New(kafka.Config{Client: newClient(t, cluster)})
	require.NoError(t, err)
	now := time.UnixMilli(1_700_000_000_000)
	errs := sink.Deliver(t.Context(), []sinks.Message{
		{ID: "1", Key: "k", Subject: "public.My Table", Type: "insert", Time: now, Headers: map[string]string{"a": "b"}, Body: []byte("{}")},
		{ID: "2", Key: "big", Subject: "public.My Table", Body: make([]byte, 2<<20)},
		{ID: "3", Subject: "public.My Table"},
	})
	require.NoError(t, errs[0])
	require.True(t, sinks.IsPermanent(errs[1]), "%v", errs[1])
	require.NoError(t, errs[2])
	byID := map[string]*kgo.Record{}
	for _, r := range consumeRecords(t, cluster, "delta.public.My_Table", 2) {
		for _, h := range r.Headers {
			if h.Key == kafka.HeaderID {
				byID[string(h.Value)] = r
			}
		}
	}
	require.Equal(t, "k", string(byID["1"].Key))
	require.Equal(t, "{}", string(byID["1"].Value))
	require.True(t, now.Equal(byID["1"].Timestamp))
	require.Equal(t, []kgo.RecordHeader{
		{Key: "a", Value: []byte("b")},
		{Key: kafka.HeaderID, Value: []byte("1")},
		{Key: kafka.HeaderType, Value: []byte("insert")},
		{Key: kafka.HeaderSubject, Value: []byte("public.My Table")},
	}, byID["1"].Headers)
	require.Nil(t, byID["3"].Key)
}

// A sink waits for brokers that refuse for a while; afterwards the topic has each message, and those of a key in order.
func TestBrokersThatRefuseForAWhileLoseNothing(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t)
	var refused atomic.Int32
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if n := refused.Add(1); n < 5 || n > 8 {
			return nil, nil, false
		}
		request := r.(*kmsg.ProduceRequest)
		response := request.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range request.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = partition.Partition, kerr.TopicAuthorizationFailed.Code
				answer.Partitions = append(answer.Partitions, p)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, true
	})
	sink, err := kafka.New(kafka.Config{Client: newClient(t, cluster)})
	require.NoError(t, err)
	sinktest.CheckOutage(t, 2000, sinks.Config{Sink: sink}, func(*sinks.Relay) {}, func() (all []sinktest.Delivered) {
		for _, r := range consumeRecords(t, cluster, "delta.number", 2000) {
			all = append(all, sinktest.Delivered{ID: string(r.Headers[0].Value), Key: string(r.Key)})
		}
		return all
	})
}

// If a broker goes away during a delivery, the delivery fails at its deadline, so that the relay counts it and can stop.
func TestADeliveryEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t)
	sink, err := kafka.New(kafka.Config{Client: newClient(t, cluster)})
	require.NoError(t, err)
	one := []sinks.Message{{ID: "1", Key: "a", Subject: "number", Body: []byte("1")}}
	require.Equal(t, []error{nil}, sink.Deliver(t.Context(), one))
	cluster.Close()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		errs := sink.Deliver(ctx, one) // without the deadline, it would not return
		cancel()
		require.ErrorContains(t, errs[0], "not answered in time")
		require.False(t, sinks.IsPermanent(errs[0]))
	}

	client, err := kgo.NewClient()
	require.NoError(t, err)
	t.Cleanup(client.Close)
	_, err = kafka.New(kafka.Config{Client: client})
	invalid := new(sinks.InvalidError)
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "Client", invalid.Field)
}

func TestTopicsAreLegal(t *testing.T) {
	t.Parallel()
	require.Equal(t, "delta.public.a_b__", kafka.DefaultTopic(sinks.Message{Subject: "public.a b/ä"}))
	require.Len(t, kafka.DefaultTopic(sinks.Message{Subject: strings.Repeat("x", 300)}), 249)
	_, err := kafka.New(kafka.Config{})
	var invalid *sinks.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "Client", invalid.Field)
}
