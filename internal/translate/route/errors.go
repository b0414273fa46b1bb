// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"

	"github.com/fairway-mesh/fairway/internal/model"
)

// RuleError says that a rule of a route, or a part of it, can't be expressed. Ingest refuses such rules with a
// condition before they get here; what still comes is isolated and reported instead of making Envoy reject the whole
// resource.
type RuleError struct {
	Source    model.ObjectRef
	RuleName  string
	RuleIndex int
	// Dropped: the rule is left out because its match can't be expressed. Otherwise it answers an error.
	Dropped bool
	Err     error
}

// Error names the rule.
func (e *RuleError) Error() string {
	did := "answers an error"
	if e.Dropped {
		did = "is left out"
	}
	return fmt.Sprintf("%s %s/%s, rule %d %s: %v", e.Source.Kind, e.Source.Namespace, e.Source.Name, e.RuleIndex, did,
		e.Err)
}

// Unwrap returns the cause.
func (e *RuleError) Unwrap() error { return e.Err }
