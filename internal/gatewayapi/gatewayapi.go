// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gatewayapi knows the releases of the Gateway API by the CRDs that are installed: which of them the mesh
// supports, and what it reads of each.
package gatewayapi

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/gateway-api/pkg/consts"
)

// Built is the release whose types the mesh is built with, and with whose CRDs nearly all tests run.
const Built = consts.BundleVersion

// The first and the last release that the mesh passes the conformance suite of, with the CRDs of that release.
var (
	first = version.MajorMinor(1, 6)
	last  = version.MajorMinor(1, 7)
)

// Supported says which releases are, as part of a sentence.
var Supported = fmt.Sprintf("v%s and v%s", first, last)

// CRDs of the Gateway API, as the annotations of one of them tell.
type CRDs struct {
	// Bundle is the release.
	Bundle string
	// Channel is standard or experimental.
	Channel string

	// release is nil where Bundle is none.
	release *version.Version
}

// Of the annotations of one of the CRDs.
func Of(annotations map[string]string) CRDs {
	out := CRDs{Bundle: annotations[consts.BundleVersionAnnotation], Channel: annotations[consts.ChannelAnnotation]}
	if v, err := version.ParseGeneric(out.Bundle); err == nil {
		out.release = version.MajorMinor(v.Major(), v.Minor())
	}
	return out
}

// Known tells whether the CRDs say of which release they are.
func (c CRDs) Known() bool { return c.release != nil }

// Older tells whether they are older than what the mesh supports.
func (c CRDs) Older() bool { return c.Known() && c.release.LessThan(first) }

// Newer tells whether they are newer than what the mesh supports.
func (c CRDs) Newer() bool { return c.Known() && c.release.GreaterThan(last) }

// Supported tells whether the mesh supports them.
func (c CRDs) Supported() bool { return c.Known() && !c.Older() && !c.Newer() }

// Lacking says what the mesh could do and can't with these CRDs; "" if there is nothing.
func (c CRDs) Lacking() string {
	later := c.Known() && c.release.GreaterThan(first)
	switch {
	case c.Channel == "standard":
		kinds := []string{"sessionPersistence", "ExternalAuth", "XBackends", "XBackendTrafficPolicies"}
		if !later {
			kinds = append([]string{"retry"}, kinds...)
		}
		n := len(kinds) - 1
		return strings.Join(kinds[:n], ", ") + " and " + kinds[n] + " take the experimental channel"
	case later:
		return fmt.Sprintf("XBackends, and names and permanent cookies of sessionPersistence, take the fields that v%s has",
			first)
	}
	return ""
}
