// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/names"
)

// ruleset is the wanted contents of our table in one namespace.
type ruleset struct {
	table  *nftables.Table
	sets   []set
	chains []chain
}

type set struct {
	*nftables.Set
	elements []nftables.SetElement
}

type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

func newRuleset() *ruleset {
	return &ruleset{table: &nftables.Table{Name: names.NftTable, Family: nftables.TableFamilyINet}}
}

// addSet adds a named set. IDs are ours, because the wanted rules are compared with the kernel's, which has none.
func (r *ruleset) addSet(s *nftables.Set, elements []nftables.SetElement) *nftables.Set {
	s.Table = r.table
	s.ID = uint32(len(r.sets) + 1) //nolint:gosec // a handful
	r.sets = append(r.sets, set{s, elements})
	return s
}

// addChain adds a base chain.
func (r *ruleset) addChain(
	name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any,
) {
	accept := nftables.ChainPolicyAccept
	r.chains = append(r.chains, chain{&nftables.Chain{
		Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: &priority, Policy: &accept,
	}, rules})
}

// addBranch adds a chain that a rule of a later one jumps to.
func (r *ruleset) addBranch(name string, rules ...[]expr.Any) {
	r.chains = append(r.chains, chain{&nftables.Chain{Name: name, Table: r.table}, rules})
}

// apply replaces our table in one transaction.
func (r *ruleset) apply(c *nftables.Conn) error {
	// Added first, so that deleting never fails, whether it was there or not.
	c.AddTable(r.table)
	c.DelTable(r.table)
	if err := r.add(c); err != nil {
		return err
	}
	return c.Flush()
}

// add our table to what the next transaction does.
func (r *ruleset) add(c *nftables.Conn) error {
	c.AddTable(r.table)
	for _, s := range r.sets {
		if err := c.AddSet(s.Set, s.elements); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, ch := range r.chains {
		c.AddChain(ch.Chain)
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: r.table, Chain: ch.Chain, Exprs: exprs})
		}
	}
	return nil
}

// applySets replaces the elements of the sets in one transaction and leaves the rules, and what rules note in sets, as
// they are.
func (r *ruleset) applySets(c *nftables.Conn) error {
	for _, s := range r.sets {
		if s.Dynamic {
			continue
		}
		c.FlushSet(s.Set)
		if err := c.SetAddElements(s.Set, s.elements); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	return c.Flush()
}

// removeTable removes our table; that it isn't there is no error.
func removeTable(c *nftables.Conn) error {
	t := newRuleset().table
	c.AddTable(t)
	c.DelTable(t)
	return c.Flush()
}

// drift compares the wanted ruleset with the kernel's and says what differs; nothing means equal.
func (r *ruleset) drift(c *nftables.Conn) ([]string, error) {
	if _, err := c.ListTableOfFamily(r.table.Name, r.table.Family); err != nil {
		if isMissing(err) {
			return []string{"table " + r.table.Name + " is missing"}, nil
		}
		return nil, err
	}
	var out []string
	for _, s := range r.sets {
		d, err := s.drift(c)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", s.Name, err)
		}
		out = append(out, d...)
	}
	for _, ch := range r.chains {
		have, err := c.GetRules(r.table, ch.Chain)
		if err != nil && !isMissing(err) {
			return nil, fmt.Errorf("read chain %s: %w", ch.Name, err)
		}
		if len(have) != len(ch.rules) {
			out = append(out, fmt.Sprintf("chain %s has %d rules instead of %d", ch.Name, len(have), len(ch.rules)))
			continue
		}
		for i := range have {
			if !equalRules(have[i].Exprs, ch.rules[i]) {
				out = append(out, fmt.Sprintf("rule %d of chain %s differs", i+1, ch.Name))
			}
		}
	}
	return out, nil
}

// drift says how the kernel's set differs. What rules note in a set is no difference, and may be much to read.
func (s set) drift(c *nftables.Conn) ([]string, error) {
	have, err := c.GetSetByName(s.Table, s.Name)
	if isMissing(err) {
		return []string{"set " + s.Name + " is missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	if s.Dynamic {
		if have.Size != s.Size {
			return []string{fmt.Sprintf("set %s has room for %d elements instead of %d", s.Name, have.Size, s.Size)}, nil
		}
		return nil, nil
	}
	elements, err := c.GetSetElements(s.Set)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(elementKeys(elements), elementKeys(s.elements)) {
		return []string{"set " + s.Name + " has other elements"}, nil
	}
	return nil, nil
}

func isMissing(err error) bool { return errors.Is(err, unix.ENOENT) }

// elementKeys are the elements in an order of their own: the kernel returns them in any.
func elementKeys(elements []nftables.SetElement) []string {
	out := make([]string, 0, len(elements))
	for _, e := range elements {
		// The kernel adds an end marker at the all-zero address to an interval set; it says nothing.
		if e.IntervalEnd && isZero(e.Key) {
			continue
		}
		out = append(out, fmt.Sprintf("%x/%t", e.Key, e.IntervalEnd))
	}
	slices.Sort(out)
	return out
}

func isZero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

func equalRules(have, want []expr.Any) bool {
	return len(have) == len(want) && slices.EqualFunc(have, want, func(a, b expr.Any) bool {
		return reflect.DeepEqual(canonical(a), canonical(b))
	})
}

// canonical changes an expression as the kernel or the library does on the way back.
func canonical(e expr.Any) expr.Any {
	switch e := e.(type) {
	case *expr.Lookup:
		c := *e
		c.SetID, c.SourceRegister = 0, register(c.SourceRegister)
		return &c
	case *expr.Payload:
		c := *e
		c.DestRegister = register(c.DestRegister)
		return &c
	case *expr.Dynset:
		c := *e
		c.SetID, c.SrcRegKey = 0, register(c.SrcRegKey)
		return &c
	case *expr.Counter:
		return &expr.Counter{} // what it has counted is no difference
	case *expr.Redir:
		c := *e
		c.RegisterProtoMax = max(c.RegisterProtoMax, c.RegisterProtoMin)
		return &c
	case *expr.NAT:
		c := *e
		c.RegAddrMax, c.Specified = max(c.RegAddrMax, c.RegAddrMin), true
		return &c
	case *expr.Ct:
		c := *e
		if c.SourceRegister {
			c.SourceRegister, c.Register = false, 0 // not read back
		}
		return &c
	}
	return e
}

// register is a register's old name, of 128 bits, where it has one: the kernel prefers that.
func register(r uint32) uint32 {
	const perOld = 4
	if r < unix.NFT_REG32_00 || (r-unix.NFT_REG32_00)%perOld != 0 {
		return r
	}
	return unix.NFT_REG_1 + (r-unix.NFT_REG32_00)/perOld
}
