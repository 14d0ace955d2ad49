package messagedb

import (
	"bytes"
	"encoding/json"
)

// Metadata holds the origin of a message, as Eventide and its clients keep it in the metadata. Give it to a [ProposedMessage] as
// its Metadata, and read it with DecodeMetadata[Metadata]. Fields that are empty are not written.
type Metadata struct {
	// CorrelationStreamName is the stream of the conversation that the message belongs to. Set it in the message that begins one; messages
	// that follow keep it. Readers of [CategoryOptions.Correlation] get the messages in which it is a stream of that category.
	CorrelationStreamName StreamName `json:"correlationStreamName,omitempty"`
	// CausationMessageStreamName, CausationMessagePosition and CausationMessageGlobalPosition name the message that this one is a reaction to.
	// The positions are nil where there is none.
	CausationMessageStreamName     StreamName `json:"causationMessageStreamName,omitempty"`
	CausationMessagePosition       *int64     `json:"causationMessagePosition,omitempty"`
	CausationMessageGlobalPosition *int64     `json:"causationMessageGlobalPosition,omitempty"`
	// ReplyStreamName is where an answer is wanted.
	ReplyStreamName StreamName `json:"replyStreamName,omitempty"`
	// SchemaVersion is the version of the message's type.
	SchemaVersion string `json:"schemaVersion,omitempty"`
	// Properties are the writer's values; messages that follow it keep them.
	Properties Properties `json:"properties,omitempty"`
	// LocalProperties are those that they do not keep.
	LocalProperties Properties `json:"localProperties,omitempty"`
}

// Properties are named values. Numbers that were read are of type json.Number, so that a large one keeps all of its digits.
type Properties map[string]any

// UnmarshalJSON keeps numbers as they are.
func (p *Properties) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return err
	}
	*p = values
	return nil
}

// Follow makes the metadata of a message that is a reaction to another one: it names that message as its cause, and keeps its correlation,
// reply stream and properties. Where the other has no correlation, the new one has none either: the message that begins a conversation
// sets it. Metadata that is not of this form gives a [*DecodeError].
//
//	metadata, err := messagedb.Follow(command)
//	event := messagedb.ProposedMessage{Type: "Opened", Data: opened, Metadata: metadata}
func Follow(prior *Message) (Metadata, error) {
	before, err := DecodeMetadata[Metadata](prior)
	if err != nil {
		return Metadata{}, err
	}
	position, globalPosition := prior.Position, prior.GlobalPosition
	return Metadata{
		CorrelationStreamName:          before.CorrelationStreamName,
		CausationMessageStreamName:     prior.Stream,
		CausationMessagePosition:       &position,
		CausationMessageGlobalPosition: &globalPosition,
		ReplyStreamName:                before.ReplyStreamName,
		Properties:                     before.Properties,
	}, nil
}

// Follows reports whether the message with this metadata is a reaction to another one: it names that message as its cause, by stream and
// both positions.
func (m Metadata) Follows(prior *Message) bool {
	return m.CausationMessageStreamName == prior.Stream &&
		m.CausationMessagePosition != nil && *m.CausationMessagePosition == prior.Position &&
		m.CausationMessageGlobalPosition != nil && *m.CausationMessageGlobalPosition == prior.GlobalPosition
}

// IsCorrelated reports whether the message belongs to a conversation of a category: the one that [CategoryOptions.Correlation] names.
func (m Metadata) IsCorrelated(category string) bool {
	return m.CorrelationStreamName != "" && m.CorrelationStreamName.Category() == category
}
