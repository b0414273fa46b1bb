// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"

	"github.com/google/nftables"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Present tells whether the namespace holds rules of ours, whatever they are.
func Present(ns *netns.Namespace) (bool, error) {
	c, err := connect(ns)
	if err != nil {
		return false, err
	}
	_, err = c.ListTableOfFamily(names.NftTable, nftables.TableFamilyINet)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read nftables rules in %s: %w", ns.Path(), err)
	}
	return true, nil
}

// Redirects tells whether the namespace has rules that capture, of whatever version; after Prepare and Drain it has
// none.
func Redirects(ns *netns.Namespace) (bool, error) {
	c, err := connect(ns)
	if err != nil {
		return false, err
	}
	rules, err := c.GetRules(newRuleset().table, &nftables.Chain{Name: chainOut})
	if err != nil && !isMissing(err) {
		return false, fmt.Errorf("read chain %s in %s: %w", chainOut, ns.Path(), err)
	}
	return len(rules) > 0, nil
}
