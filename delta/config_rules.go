package delta

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// validate checks the fields that the user set, before defaults.
func (c Config) validate() error {
	if c.WorkflowIDPrefix != "" {
		if err := checkName("Config.WorkflowIDPrefix", c.WorkflowIDPrefix); err != nil {
			return err
		}
	}
	if err := checkTaskQueue(c.TaskQueue); err != nil {
		return err
	}
	if err := c.WorkerVersion.validate(); err != nil {
		return err
	}
	for i, middleware := range c.Middleware {
		if middleware == nil {
			return inputError(fmt.Sprintf("Config.Middleware[%d]", i), nil, "must not be nil")
		}
	}
	switch {
	case c.TemporalOptions != nil && c.Temporal != nil:
		return inputError("Config.TemporalOptions", "a function", "must not be set together with Config.Temporal: give the options to that client as it is dialled")
	case c.ObjectCodec != nil && len(c.ObjectHashKey) < minHashKeyBytes:
		return inputError("Config.ObjectHashKey", fmt.Sprintf("of %d bytes", len(c.ObjectHashKey)), "must be a secret of %d bytes at least, because ObjectCodec is set", minHashKeyBytes)
	case c.ObjectCodec == nil && c.ObjectHashKey != nil:
		return inputError("Config.ObjectHashKey", fmt.Sprintf("of %d bytes", len(c.ObjectHashKey)), "must be nil, because ObjectCodec is nil")
	case c.SharedWorker && c.TaskQueue == "":
		return inputError("Config.SharedWorker", true, "needs Config.TaskQueue, the name of the task queue that all kinds share")
	case !c.WorkerVersion.isUnversioned() && c.TaskQueue != "" && !c.SharedWorker:
		return inputError("Config.WorkerVersion", c.WorkerVersion, "is for workers that Start runs: give the worker of Config.TaskQueue DeploymentOptions, or set Config.SharedWorker")
	case c.PinPasses && c.WorkerVersion.isUnversioned():
		return inputError("Config.PinPasses", true, "needs Config.WorkerVersion, the version that passes stay on")
	case c.CountResourcesInterval > 0 && c.CountResourcesInterval < measureEvery:
		return inputError("Config.CountResourcesInterval", c.CountResourcesInterval, "must be at least %s, negative for never, or 0 for the default", measureEvery)
	case c.DispatchPollInterval != 0 && (c.DispatchPollInterval < minDispatchPoll || c.DispatchPollInterval > maxDispatchPoll):
		return inputError("Config.DispatchPollInterval", c.DispatchPollInterval, "must be between %s and %s, or 0 for the default", minDispatchPoll, maxDispatchPoll)
	}
	const anything = math.MinInt64
	for _, d := range []struct {
		field        string
		value, least time.Duration
		rule         string
	}{
		{"ResourceWorkTimeout", c.ResourceWorkTimeout, -1, "must be positive, 0 for the default, or -1 for no bound"},
		{"ControllerInformTimeout", c.ControllerInformTimeout, -1, "must be positive, 0 for the default, or -1 for no bound"},
		{"MaintenanceJobInterval", c.MaintenanceJobInterval, 0, "must be positive, or 0 for the default"},
		{"ResourceCleanerTimeout", c.ResourceCleanerTimeout, 0, "must be positive, or 0 for the default"},
		{"ChangeRetentionPeriod", c.ChangeRetentionPeriod, 0, "must be positive, or 0 for the default"},
		{"MaxChangeRetentionPeriod", c.MaxChangeRetentionPeriod, 0, "must be positive, or 0 for the default"},
		{"ResourceCleanerInterval", c.ResourceCleanerInterval, 0, "must be positive, or 0: it has no effect"},
		{"StuckScheduledThreshold", c.StuckScheduledThreshold, 0, "must be positive, or 0: it has no effect"},
		{"ResourceInformJitter", c.ResourceInformJitter, anything, ""},
		{"CountResourcesInterval", c.CountResourcesInterval, anything, ""},
		{"ResourceInformInterval", c.ResourceInformInterval, anything, ""},
		{"SyncedResourceRetentionPeriod", c.SyncedResourceRetentionPeriod, anything, ""},
		{"DegradedResourceRetentionPeriod", c.DegradedResourceRetentionPeriod, anything, ""},
		{"DeletedResourceRetentionPeriod", c.DeletedResourceRetentionPeriod, anything, ""},
	} {
		if d.value < d.least {
			return inputError("Config."+d.field, d.value, "%s", d.rule)
		}
		if err := checkDuration("Config."+d.field, d.value); err != nil {
			return err
		}
	}
	if most, keep := c.MaxChangeRetentionPeriod, cmp.Or(c.ChangeRetentionPeriod, defaultChangeRetention); most > 0 && most < keep {
		return inputError("Config.MaxChangeRetentionPeriod", most, "must be at least ChangeRetentionPeriod, which is %s", keep)
	}
	if d := c.ResourceInformInterval; d > 0 && d < minInformInterval {
		return inputError("Config.ResourceInformInterval", d, "must be at least %s, negative for never, or 0 for the default", minInformInterval)
	}
	if err := checkInterval("Config.ResourceInformInterval", c.ResourceInformInterval); err != nil {
		return err
	}
	if len(c.Namespaces) > 0 && len(c.Controllers.kindNames()) == 0 {
		return errors.New("Config.Namespaces needs Config.Controllers: a client without controllers only informs")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		field := fmt.Sprintf("Config.Namespaces[%q]", name)
		if err := checkName(field, name); err != nil {
			return err
		}
		if err := c.Namespaces[name].validate(field); err != nil {
			return err
		}
	}
	return nil
}
