// Command check holds a log that Trunkline wrote against golang.org/x/mod/sumdb: its notes, tiles
// and proofs, read by the code that checks Go's own module database. It also signs a note.
//
// Work is JSON on standard input, what was found is JSON on standard output. The first thing that
// does not hold ends it with status 1 and a line on standard error.
package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

type work struct {
	Vkey        string            `json:"vkey"`
	Old         string            `json:"old"`         // an earlier checkpoint's note
	New         string            `json:"new"`         // a later one's
	Tiles       map[string][]byte `json:"tiles"`       // by path, as served
	Entries     [][]byte          `json:"entries"`     // all entries, in order
	Inclusion   [][][]byte        `json:"inclusion"`   // our proof of each entry in the new tree
	Consistency [][]byte          `json:"consistency"` // our proof from the old to the new tree
	SignText    string            `json:"sign_text"`   // a note's text to sign
	SignName    string            `json:"sign_name"`
	Signatures  []signature       `json:"signatures"` // of docs/spec/ed25519-vectors.json
}

type signature struct {
	Public    []byte `json:"public"`
	Message   []byte `json:"message"`
	Signature []byte `json:"signature"`
}

type found struct {
	OldSize    int64  `json:"old_size"`
	NewSize    int64  `json:"new_size"`
	Unknown    int    `json:"unknown"` // signatures of the new checkpoint by keys other than the log's
	Entries    int    `json:"entries"`
	TilesRead  int    `json:"tiles_read"`
	SignedVkey string `json:"signed_vkey"`
	SignedNote string `json:"signed_note"`
	Taken      []bool `json:"taken"` // which of the signatures crypto/ed25519 takes
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var given work
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		return err
	}
	var out found
	if err := checkLog(&given, &out); err != nil {
		return err
	}
	if err := sign(&given, &out); err != nil {
		return err
	}
	for _, one := range given.Signatures {
		out.Taken = append(out.Taken, ed25519.Verify(one.Public, one.Message, one.Signature))
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func checkLog(given *work, out *found) error {
	verifier, err := note.NewVerifier(given.Vkey)
	if err != nil {
		return fmt.Errorf("vkey: %w", err)
	}
	old, _, err := openCheckpoint(given.Old, verifier)
	if err != nil {
		return fmt.Errorf("old checkpoint: %w", err)
	}
	tree, unknown, err := openCheckpoint(given.New, verifier)
	if err != nil {
		return fmt.Errorf("new checkpoint: %w", err)
	}
	out.OldSize, out.NewSize, out.Unknown = old.N, tree.N, unknown
	tiles := &served{files: given.Tiles, seen: map[string]bool{}}
	// The reader holds tiles against the tree's root; proofs made of them are checked all the same,
	// as older versions of it left out some of the full tiles.
	reader := tlog.TileHashReader(tree, tiles)
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("root out of tiles: %v (%w)", root, err)
	}
	if err := checkTrees(given, old, tree, reader); err != nil {
		return err
	}
	if err := checkEntries(given, tree, reader); err != nil {
		return err
	}
	out.Entries, out.TilesRead = len(given.Entries), len(tiles.seen)
	return nil
}

func checkTrees(given *work, old, tree tlog.Tree, reader tlog.HashReader) error {
	own, err := tlog.ProveTree(tree.N, old.N, reader)
	if err != nil {
		return fmt.Errorf("consistency out of tiles: %w", err)
	}
	theirs, err := hashes(given.Consistency)
	if err != nil {
		return err
	}
	for _, proof := range []tlog.TreeProof{own, theirs} {
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return fmt.Errorf("consistency: %w", err)
		}
	}
	return nil
}

func checkEntries(given *work, tree tlog.Tree, reader tlog.HashReader) error {
	if int64(len(given.Entries)) != tree.N || len(given.Inclusion) != len(given.Entries) {
		return fmt.Errorf("%d entries for a tree of %d", len(given.Entries), tree.N)
	}
	for i, entry := range given.Entries {
		index := int64(i)
		own, err := tlog.ProveRecord(tree.N, index, reader)
		if err != nil {
			return fmt.Errorf("inclusion of entry %d out of tiles: %w", i, err)
		}
		theirs, err := hashes(given.Inclusion[i])
		if err != nil {
			return err
		}
		for _, proof := range []tlog.RecordProof{own, tlog.RecordProof(theirs)} {
			leaf := tlog.RecordHash(entry)
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				return fmt.Errorf("inclusion of entry %d: %w", i, err)
			}
		}
	}
	return nil
}

// openCheckpoint reads the tree that verifier signed, and counts the signatures by other keys.
func openCheckpoint(text string, verifier note.Verifier) (tlog.Tree, int, error) {
	signed, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, 0, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, 0, fmt.Errorf("not a checkpoint of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, 0, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, len(signed.UnverifiedSigs), err
}

// served reads tiles as the log served them. Go's paths name the height, those of C2SP do not.
type served struct {
	files map[string][]byte
	seen  map[string]bool
}

func (s *served) Height() int { return tileHeight }

func (s *served) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		data, ok := s.files[path]
		if !ok {
			return nil, fmt.Errorf("%s was not served", path)
		}
		s.seen[path] = true
		read = append(read, data)
	}
	return read, nil
}

func (s *served) SaveTiles([]tlog.Tile, [][]byte) {}

func hashes(spelled [][]byte) (tlog.TreeProof, error) {
	proof := tlog.TreeProof{}
	for _, data := range spelled {
		var hash tlog.Hash
		if copy(hash[:], data) != len(data) || len(data) != len(hash) {
			return nil, fmt.Errorf("a hash of %d bytes", len(data))
		}
		proof = append(proof, hash)
	}
	return proof, nil
}

func sign(given *work, out *found) error {
	skey, vkey, err := note.GenerateKey(rand.Reader, given.SignName)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: given.SignText}, signer)
	out.SignedVkey, out.SignedNote = vkey, string(signed)
	return err
}
