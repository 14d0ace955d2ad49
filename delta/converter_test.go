package delta_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// secret is a user's codec: Temporal stores nothing readable without it.
type secret struct{}

func (secret) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	all := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		encoded, err := p.Marshal()
		if err != nil {
			return nil, err
		}
		for j := range encoded {
			encoded[j] ^= 0x5a
		}
		all[i] = &commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte("binary/secret")}, Data: encoded}
	}
	return all, nil
}

func (secret) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	all := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		if string(p.Metadata["encoding"]) != "binary/secret" {
			all[i] = p
			continue
		}
		decoded := append([]byte(nil), p.Data...)
		for j := range decoded {
			decoded[j] ^= 0x5a
		}
		all[i] = &commonpb.Payload{}
		if err := all[i].Unmarshal(decoded); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func TestTheUsersDataConverterHolds(t *testing.T) {
	t.Parallel()
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.DataConverter = converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), secret{})
	}))}
	c := h.start(h.config(
		with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
			if r.Object.Plan == "bad" {
				return delta.ResourceDegrade(errors.New("a plain reason"))
			}
			return nil
		}}),
		with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
			return sendAll(ctx, listed{Name: "a"}), nil
		}}),
	))
	row, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "listed", RunForeground: true}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, run.Listed)
	require.NoError(t, h.Temporal.SignalWorkflow(t.Context(), row.WorkflowID, "", "inform", map[string]any{
		"object": account{Name: "ann", Plan: "bad"},
	}))
	h.eventually("account", "ann", inState(deltatype.ResourceStateDegraded))

	for _, event := range h.history(row.WorkflowID) {
		require.NotContains(t, strings.ReplaceAll(event.String(), `\`, ""), "a plain reason")
	}
}
