package db

import (
	"bytes"
	"slices"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// isWaiting reports whether an attempt is before a resource, and none is under way.
func isWaiting(state deltatype.ResourceState) bool {
	return state == deltatype.ResourceStateScheduled || state == deltatype.ResourceStateExpired || state == deltatype.ResourceStateFailed
}

// checkNamespace is why a row keeps from an object what it asks for; nil where it does not.
func checkNamespace(r *Resource, o *deltatype.ObjectInformParams) error {
	if o.Namespace == "" || o.Namespace == r.Namespace || o.MoveNamespace {
		return nil
	}
	return &deltatype.NamespaceError{Kind: r.Kind, ObjectID: r.ObjectID, Namespace: r.Namespace, Given: o.Namespace}
}

// riversHash begins the hashes that were taken over from the original (delta_is_rivers). The statements compare the objects
// of such rows, and whatever changes an object replaces its hash: a row that has it still is as it was found.
var riversHash = []byte("river:")

// staysDeleted reports whether an inform leaves a row deleted, whatever it says of the object (delta_stays_deleted).
func staysDeleted(r *Resource, revive bool) bool {
	return r.State == deltatype.ResourceStateDeleted && !revive && (r.Cause == nil || *r.Cause != deltatype.CauseUnlisted)
}

// comesBack reports whether an inform has a settled row synced again, although its object did not change (delta_comes_back).
func comesBack(r *Resource, revive bool) bool {
	switch r.State {
	case deltatype.ResourceStateDegraded:
		return revive || r.Cause == nil || *r.Cause != deltatype.CauseHopeless
	case deltatype.ResourceStateDeleted:
		return revive || (r.Cause != nil && *r.Cause == deltatype.CauseUnlisted)
	case deltatype.ResourceStateUnknown:
		return revive
	default:
		return false
	}
}

// needsWrite is the condition of InformResource, for a row that is in the object's namespace and as it was seen. If it is true of a row that
// was left alone, the row changed between the two statements.
func needsWrite(r *Resource, o *deltatype.ObjectInformParams, options InformOptions) bool {
	if staysDeleted(r, options.Revive) || isStale(o, r) {
		return false
	}
	isOnItsWay := r.State == deltatype.ResourceStateScheduled || r.State == deltatype.ResourceStatePending
	return !asGiven(r, o) || comesBack(r, options.Revive) || (options.ProcessExisting && !isOnItsWay)
}

// asGiven reports whether a row has the content and the options of an object, as far as they can be compared as they are, and as they
// are a reason to call Work.
func asGiven(r *Resource, o *deltatype.ObjectInformParams) bool {
	return (bytes.Equal(r.Hash, o.Hash) || bytes.HasPrefix(r.Hash, riversHash)) &&
		(o.Namespace == "" || o.Namespace == r.Namespace) &&
		(o.MaxAttempts == 0 || o.MaxAttempts == r.MaxAttempts) &&
		(!o.SyncMetadata || o.Tags == nil || slices.Equal(o.Tags, r.Tags))
}
