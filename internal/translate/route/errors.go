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
	source    model.ObjectRef
	ruleName  string
	ruleIndex int
	// dropped: the rule is left out because its match can't be expressed. Otherwise it answers an error.
	dropped bool
	err     error
}

// Error names the rule.
func (e *RuleError) Error() string {
	did := "answers an error"
	if e.dropped {
		did = "is left out"
	}
	return fmt.Sprintf("%s %s/%s, rule %d %s: %v", e.source.Kind, e.source.Namespace, e.source.Name, e.ruleIndex, did,
		e.err)
}

// Unwrap returns the cause.
func (e *RuleError) Unwrap() error { return e.err }
