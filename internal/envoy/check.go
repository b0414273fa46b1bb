// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Message is any message of Envoy's API.
type Message interface {
	proto.Message
	ValidateAll() error
}

// Check tells whether Envoy would accept a message: its own validation rules, and that it can be marshalled at all (no
// string that is not UTF-8). It doesn't look into an Any.
func Check(m Message) error {
	if err := m.ValidateAll(); err != nil {
		return err
	}
	if _, err := proto.Marshal(m); err != nil {
		return fmt.Errorf("not UTF-8: %w", err)
	}
	return nil
}
