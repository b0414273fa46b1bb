// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

const (
	table = "network-policies"
	// queue is the number by which the kernel's rules and the controller find each other.
	queue = 100
)

// addRules queues the first packet of every connection that the node forwards. Those of the node itself, kubelet's
// probes among them, are not forwarded, and NetworkPolicies don't concern them. The hook is after the destination of a
// Service is chosen and before sources are masked.
func addRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}
	c.AddTable(t)
	c.FlushTable(t)
	chain := c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	number := make(xt.Unknown, 8) // the kernel's struct xt_NFQ_info, aligned
	binary.NativeEndian.PutUint16(number, queue)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(state(expr.CtStateBitNEW),
		&expr.Target{Name: "NFQUEUE", Rev: 0, Info: &number})})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("adding rules that queue packets (NFQUEUE): %w", err)
	}
	return nil
}

// state matches connections that are in one of the states of a mask.
func state(mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func removeRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.DelTable(&nftables.Table{Name: table, Family: nftables.TableFamilyIPv4})
	return c.Flush()
}

// listening fails while nobody takes what the rules queue.
func listening() error {
	queues, err := os.ReadFile("/proc/net/netfilter/nfnetlink_queue") // a line for each, its number first
	if err != nil {
		return err
	}
	for line := range bytes.Lines(queues) {
		if f := bytes.Fields(line); len(f) > 0 && string(f[0]) == strconv.Itoa(queue) {
			return nil
		}
	}
	return errors.New("nobody listens")
}
