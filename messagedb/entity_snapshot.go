package messagedb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// snapshot is the data of a message that holds one, as in Eventide: of type Recorded, in the stream CATEGORY:snapshot-ID.
type snapshot struct {
	EntityData    json.RawMessage `json:"entityData"`
	EntityVersion int64           `json:"entityVersion"`
	Time          time.Time       `json:"time"`
}

// snapshotMetadata decides whether a snapshot can be used.
type snapshotMetadata struct {
	// Version is EntityConfig.SnapshotVersion.
	Version int `json:"snapshotVersion"`
	// Message is the id of the message at the version of the entity.
	Message string `json:"messageId"`
}

// SnapshotStream is where the snapshots of an id are: in the category of the entity, with the type snapshot.
func (e *Entity[T]) SnapshotStream(id string) (StreamName, error) {
	return ParseStreamName(withType(e.config.Category, "snapshot") + StreamNameSeparator + id)
}

func (e *Entity[T]) snapshotStreamOf(stream StreamName) StreamName {
	id, _ := stream.ID()
	return StreamName(withType(e.config.Category, "snapshot") + StreamNameSeparator + id)
}

// loadSnapshot reads the newest snapshot of a stream; one that cannot be used is as good as none.
func (e *Entity[T]) loadSnapshot(ctx context.Context, stream StreamName) (folded[T], error) {
	if e.config.SnapshotInterval == 0 {
		return e.newFolded(), nil
	}
	m, err := e.store.LastMessage(ctx, e.snapshotStreamOf(stream), recordedType)
	if errors.Is(err, ErrNoMessage) {
		return e.newFolded(), nil
	}
	if err != nil {
		return folded[T]{}, err
	}
	loaded, err := e.decodeSnapshot(m)
	if err != nil {
		e.config.Logger.Warn("messagedb: a snapshot is not used, and its stream is folded from the beginning",
			"stream", stream, "snapshot_stream", m.Stream, "position", m.Position, "error", err)
		return e.newFolded(), nil
	}
	return loaded, nil
}

func (e *Entity[T]) decodeSnapshot(m *Message) (folded[T], error) {
	metadata, err := DecodeMetadata[snapshotMetadata](m)
	if err != nil {
		return folded[T]{}, err
	}
	if metadata.Version != e.config.SnapshotVersion || metadata.Message == "" {
		return folded[T]{}, fmt.Errorf("it has the version %d, and SnapshotVersion is %d", metadata.Version, e.config.SnapshotVersion)
	}
	data, err := Decode[snapshot](m)
	if err != nil {
		return folded[T]{}, err
	}
	if data.EntityVersion < 0 {
		return folded[T]{}, fmt.Errorf("its entityVersion is %d", data.EntityVersion)
	}
	var value T // not of New, into which it would be merged: a field or key that the snapshot leaves out would come back
	if err := json.Unmarshal(data.EntityData, &value); err != nil {
		return folded[T]{}, fmt.Errorf("its entityData into %T: %w", value, err)
	}
	return folded[T]{value: value, version: data.EntityVersion, last: metadata.Message, snapshot: data.EntityVersion}, nil
}

// takeSnapshot writes a snapshot if SnapshotInterval messages have passed since the last one. A failure is only logged, because the value is right without it.
func (e *Entity[T]) takeSnapshot(ctx context.Context, stream StreamName, read *folded[T]) {
	if e.config.SnapshotInterval == 0 || read.version-read.snapshot < int64(e.config.SnapshotInterval) {
		return
	}
	to := e.snapshotStreamOf(stream)
	if err := e.writeSnapshot(ctx, to, *read); err != nil {
		e.config.Logger.Warn("messagedb: a snapshot could not be written", "stream", stream, "snapshot_stream", to, "version", read.version, "error", err)
		return
	}
	read.snapshot = read.version
}

func (e *Entity[T]) writeSnapshot(ctx context.Context, to StreamName, read folded[T]) error {
	text, err := json.Marshal(read.value)
	if err != nil {
		return err
	}
	_, err = e.store.WriteMessage(ctx, to, ProposedMessage{
		// Two processes that read the same version write one snapshot.
		ID:       DerivedID(to.String(), recordedType, read.last, fmt.Sprint(e.config.SnapshotVersion)),
		Type:     recordedType,
		Data:     snapshot{EntityData: text, EntityVersion: read.version, Time: time.Now().UTC()},
		Metadata: snapshotMetadata{Version: e.config.SnapshotVersion, Message: read.last},
	}, AnyVersion)
	if duplicate := new(DuplicateIDError); errors.As(err, &duplicate) {
		return nil
	}
	return err
}
