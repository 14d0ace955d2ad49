package delta

import (
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// NamespaceDefault is the namespace of objects that name none.
const NamespaceDefault = "default"

// Object is something outside that is to be kept in line. It is stored as JSON, as encoding/json makes it. See
// [deltatype.Object] for the rules that ID and Kind follow.
type Object = deltatype.Object

// InformOptions narrow what an informer lists.
type InformOptions = deltatype.InformOptions

// ObjectWithCreatedAt is for objects that know when they were created outside. Informers then go on from the latest
// creation that they have seen, instead of from the time of their last pass.
type ObjectWithCreatedAt interface {
	CreatedAt() time.Time
}

// ObjectWithInformOpts is for objects that bring options of their own. Those given to an inform win over them.
type ObjectWithInformOpts interface {
	InformOpts() InformOpts
}

// ObjectWithSettings is for kinds with settings of their own. The method is called once, on a zero object, when the
// controller is added.
type ObjectWithSettings interface {
	Settings() ObjectSettings
}

// ObjectSettings are the settings of a kind.
type ObjectSettings struct {
	// Parallelism is how many calls of Work for this kind run at once in one client, 10,000 at most.
	//
	// Defaults to 1.
	Parallelism int

	// InformInterval is how often the informer runs. Negative: never.
	//
	// Defaults to the client's ResourceInformInterval.
	InformInterval time.Duration
}

// InformOpts are options of a resource. A zero field leaves the resource what it has; a new resource gets the default.
type InformOpts struct {
	// Namespace is where the resource belongs. Letters, digits, '_', '-' and '.', at most 127 bytes.
	//
	// Defaults to [NamespaceDefault].
	Namespace string

	// Metadata is a JSON object, stored with the resource.
	//
	// Defaults to {}.
	Metadata []byte

	// MaxAttempts is how many times a sync is tried before the resource is degraded.
	//
	// Defaults to 10.
	MaxAttempts int16

	// Tags group resources; they have no effect. Each is at least three characters and at most 255 long, letters,
	// digits, '_' and '-', with no '-' at either end. They replace the resource's tags; an empty, non-nil slice removes
	// them.
	Tags []string
}

// over returns the options with what is not set taken from another set.
func (o InformOpts) over(under InformOpts) InformOpts {
	if o.Namespace == "" {
		o.Namespace = under.Namespace
	}
	if o.Metadata == nil {
		o.Metadata = under.Metadata
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = under.MaxAttempts
	}
	if o.Tags == nil {
		o.Tags = under.Tags
	}
	return o
}
