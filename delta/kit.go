package delta

import (
	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/delta/internal/kit"
)

func init() {
	kit.Open = openKit
	kit.CheckInformOptions = func(o *deltatype.InformOptions) error { return checkInformOptions(ScheduleInformParams{}, o) }
	kit.Encode = func(object deltatype.Object) (deltatype.ObjectInformParams, error) {
		return encodeObject(object, nil, nil)
	}
	kit.InputError, kit.SchemaError, kit.RetryUnavailable = inputError, schemaError, retryUnavailable
}

// openKit lets deltatest call a controller without a database, with the settings and the Config of a client, or with those
// of the kind and the defaults.
func openKit(controllers, client any) *kit.Kind {
	c := &Client{config: Config{}.WithDefaults()}
	own, _ := client.(*Client)
	if own != nil {
		c.config, c.retained, c.coder = own.config, own.retained, own.coder
	}
	set := controllers.(*Controllers)
	kind := set.kindNames()[0]
	r := set.byKind[kind]
	if own != nil {
		if there, ok := own.config.Controllers.findKind(kind); ok {
			r.settings = there.settings
		}
	}
	a := c.configuredActivities(r)
	if own != nil {
		a.Context = own.withClient
	}
	return &kit.Kind{Activities: a, Decode: r.decode, Encode: func(object deltatype.Object, opts any) (deltatype.ObjectInformParams, error) {
		return encodeForKind(kind, object, opts.(*InformOpts), r.decode)
	}}
}

// configuredActivities returns the activities of a kind, with the fields that its settings and the client's Config decide.
func (c *Client) configuredActivities(r registered) *activities.Activities {
	return &activities.Activities{
		Coder:         c.coder,
		Handler:       r.handler,
		Logger:        c.config.Logger,
		WorkTimeout:   c.config.ResourceWorkTimeout,
		InformTimeout: c.config.ControllerInformTimeout,
		Retry:         r.settings.RetryPolicy,
		Retention:     c.kindRetention(r),
		Listing: activities.Listing{
			Overlap:          r.settings.InformOverlap,
			Complete:         r.settings.CompleteListing,
			Full:             r.settings.FullListingInterval > 0,
			MostDeleted:      r.settings.MaxDeleted,
			MostDeletedShare: r.settings.MaxDeletedShare,
		},
		LogChanges:         r.settings.Log,
		HashObjectIDs:      c.config.HashObjectIDs,
		Parallelism:        r.settings.Parallelism,
		BatchSize:          r.settings.BatchSize,
		HeartbeatTimeout:   r.settings.HeartbeatTimeout,
		AbandonAfter:       defaultAbandonAfter,
		DefaultMaxAttempts: defaultMaxAttempts,
	}
}
