package frozen

import (
	"go/types"
	"slices"
	"strings"
)

// describer describes the names of a package. It leaves out the names of parameters, because they may change.
type describer struct{ of *types.Package }

func (d describer) qualify(other *types.Package) string {
	if other == d.of {
		return ""
	}
	return other.Name()
}

func (d describer) typeOf(t types.Type) string {
	if signature, ok := t.(*types.Signature); ok {
		return "func" + d.signature(signature)
	}
	return types.TypeString(t, d.qualify)
}

func (d describer) signature(s *types.Signature) string {
	parameters := d.tuple(s.Params(), s.Variadic())
	results := d.tuple(s.Results(), false)
	text := d.typeParameters(s.TypeParams()) + "(" + strings.Join(parameters, ", ") + ")"
	switch len(results) {
	case 0:
		return text
	case 1:
		return text + " " + results[0]
	}
	return text + " (" + strings.Join(results, ", ") + ")"
}

func (d describer) tuple(t *types.Tuple, variadic bool) (all []string) {
	for i := range t.Len() {
		text := d.typeOf(t.At(i).Type())
		if variadic && i == t.Len()-1 {
			text = "..." + strings.TrimPrefix(text, "[]")
		}
		all = append(all, text)
	}
	return all
}

func (d describer) typeParameters(list *types.TypeParamList) string {
	if list.Len() == 0 {
		return ""
	}
	var all []string
	for i := range list.Len() {
		all = append(all, list.At(i).Obj().Name()+" "+d.typeOf(list.At(i).Constraint()))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func (d describer) typeName(o *types.TypeName) []string {
	if alias, ok := o.Type().(*types.Alias); ok {
		lines := []string{"type " + o.Name() + d.typeParameters(alias.TypeParams()) + " = " + d.typeOf(alias.Rhs())}
		if of, ok := alias.Rhs().(*types.Named); ok && isUnpromised(of.Obj().Pkg()) {
			lines = append(lines, d.declaration(o.Name(), of)...) // what the alias promises, its package does not
		}
		return lines
	}
	named, ok := o.Type().(*types.Named)
	if !ok {
		return []string{"type " + o.Name() + " = " + d.typeOf(o.Type())}
	}
	return d.declaration(o.Name(), named)
}

func isUnpromised(p *types.Package) bool {
	return p != nil && slices.Contains(unpromised, strings.TrimPrefix(p.Path(), module+"/"))
}

func (d describer) declaration(name string, named *types.Named) []string {
	head := "type " + name + d.typeParameters(named.TypeParams()) + " "
	var lines []string
	switch underlying := named.Underlying().(type) {
	case *types.Struct:
		lines = d.structure(head, name, named, underlying)
	case *types.Interface:
		return []string{head + d.contract(underlying)}
	default:
		lines = []string{head + d.typeOf(underlying)}
	}
	return append(lines, d.methods(name, named)...)
}

// structure has a line for each exported field, with its tag, which may be the name of a JSON field. Whether values can be compared, and whether they can be
// written without the names of fields, is a promise too.
func (d describer) structure(head, name string, named *types.Named, s *types.Struct) []string {
	head += "struct"
	if types.Comparable(named) {
		head += ", comparable"
	}
	var lines []string
	hidden := false
	for i := range s.NumFields() {
		field := s.Field(i)
		if !field.Exported() {
			hidden = true
			continue
		}
		line := "field " + name + "." + field.Name() + " " + d.typeOf(field.Type())
		if field.Embedded() {
			line = "field " + name + " embeds " + d.typeOf(field.Type())
		}
		if tag := s.Tag(i); tag != "" {
			line += " `" + tag + "`"
		}
		lines = append(lines, line)
	}
	if hidden {
		head += ", with unexported fields"
	}
	return append(lines, head)
}

// contract is one line, because a new method of an interface breaks the types that implement it.
func (d describer) contract(i *types.Interface) string {
	if !i.IsMethodSet() {
		return types.TypeString(i, d.qualify)
	}
	var methods []string
	sealed := ""
	for n := range i.NumMethods() {
		if m := i.Method(n); m.Exported() {
			methods = append(methods, m.Name()+d.signature(m.Signature()))
		} else {
			sealed = ", which only this package implements"
		}
	}
	return "interface { " + strings.Join(methods, "; ") + " }" + sealed
}

func (d describer) methods(name string, named *types.Named) (lines []string) {
	ofValues := types.NewMethodSet(named)
	ofPointers := types.NewMethodSet(types.NewPointer(named))
	for i := range ofPointers.Len() {
		m, ok := ofPointers.At(i).Obj().(*types.Func)
		if !ok || !m.Exported() {
			continue
		}
		receiver := "*" + name
		if ofValues.Lookup(m.Pkg(), m.Name()) != nil {
			receiver = name
		}
		lines = append(lines, "method ("+receiver+") "+m.Name()+d.signature(m.Signature()))
	}
	return lines
}
