package db

import (
	"bytes"
	"slices"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// isWaiting reports whether an attempt of a resource is to come, and none is under way.
func isWaiting(state deltatype.ResourceState) bool {
	return state == deltatype.ResourceStateScheduled || state == deltatype.ResourceStateExpired || state == deltatype.ResourceStateFailed
}

// checkNamespace returns an error if an object asks for another namespace than its row's without being allowed to move
// it.
func checkNamespace(r *Resource, o *deltatype.ObjectInformParams) error {
	if o.Namespace == "" || o.Namespace == r.Namespace || o.MoveNamespace {
		return nil
	}
	return &deltatype.NamespaceError{Kind: r.Kind, ObjectID: r.ObjectID, Namespace: r.Namespace, Given: o.Namespace}
}

// riversHash begins hashes that were imported from Delta on River (delta_is_rivers). The statements compare the objects
// of such rows, and every change of an object replaces its hash, so a row that still has it is unchanged.
var riversHash = []byte("river:")

// IsImportedHash reports whether a hash was imported from Delta on River: it says nothing of an object that is hashed now.
func IsImportedHash(hash []byte) bool { return bytes.HasPrefix(hash, riversHash) }

// staysDeleted reports whether an inform leaves a row deleted, even if the object changed (delta_stays_deleted).
func staysDeleted(r *Resource, revive bool) bool {
	return r.State == deltatype.ResourceStateDeleted && !revive && (r.Cause == nil || *r.Cause != deltatype.CauseUnlisted)
}

// comesBack reports whether an inform syncs a settled row again although its object did not change (delta_comes_back).
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

// needsWrite is the condition of InformResource, for a row that is in the object's namespace and as it was read. If it
// holds for a row that was not written, the row changed between the two statements.
func needsWrite(r *Resource, o *deltatype.ObjectInformParams, options InformOptions) bool {
	if staysDeleted(r, options.Revive) || isStale(o, r) {
		return false
	}
	isOnItsWay := r.State == deltatype.ResourceStateScheduled || r.State == deltatype.ResourceStatePending
	return !asGiven(r, o) || comesBack(r, options.Revive) || (options.ProcessExisting && !isOnItsWay)
}

// asGiven reports whether a row has the content and those options of an object that would be a reason to call Work, as
// far as they can be compared byte by byte.
func asGiven(r *Resource, o *deltatype.ObjectInformParams) bool {
	return (bytes.Equal(r.Hash, o.Hash) || IsImportedHash(r.Hash)) &&
		(o.Namespace == "" || o.Namespace == r.Namespace) &&
		(o.MaxAttempts == 0 || o.MaxAttempts == r.MaxAttempts) &&
		(!o.SyncMetadata || o.Tags == nil || slices.Equal(o.Tags, r.Tags))
}
